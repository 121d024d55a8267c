"""Stand-ins for the programs of SLURM: they obey options and variables as real ones, and write down their calls."""

import json
import sys
from pathlib import Path
from typing import Any

# a name is hidden by any filter of squeue that is exported, since none of them fits our jobs
PROGRAM = """#!{python} -S
import json, os, re, sys
folder, program, said = {folder!r}, os.path.basename(sys.argv[0]), dict(os.environ)
options = dict(word[2:].partition("=")[::2] for word in sys.argv[1:] if word.startswith("--"))
with open(folder + "/calls", "a") as file:
    file.write(json.dumps([program, *sys.argv[1:]]) + "\\n")
answer = folder + "/" + program
numbers = [int(name[:-5]) for name in os.listdir(folder) if name.endswith(".json")]
if os.path.exists(answer):
    sys.stdout.buffer.write(open(answer, "rb").read())
    sys.stdout.flush()
if program == "scontrol":
    print("MaxArraySize            = 7")
elif program == "sbatch" and os.path.exists(folder + "/words"):
    sys.stderr.buffer.write(open(folder + "/words", "rb").read())
    sys.exit(1)
elif program == "sbatch":
    script = sys.stdin.read() if "test-only" in options else open(sys.argv[-1]).read()
    lines = dict(re.findall("#SBATCH --([a-z-]+)=(.*)", script))
    exported = said.get("SLURM_CLUSTERS") or said.get("SBATCH_CLUSTERS")
    job = dict(script=script, environment=said, id=101 + len(numbers), array=lines.get("array", "").split("%")[0])
    job["name"] = said.get("SBATCH_JOB_NAME") or lines["job-name"]
    job["cluster"] = options.get("clusters") or exported or lines.get("clusters") or "home"
    with open(f"{{folder}}/{{1 + len(numbers)}}.json", "w") as file:
        json.dump(job, file)
    if not os.path.exists(answer):
        print("" if "parsable" in options else "Submitted batch job ", job["id"], sep="")
elif program == "squeue" and not any(said.get("SQUEUE_" + name) for name in {filters!r}):
    cluster = options.get("clusters") or said.get("SLURM_CLUSTERS") or "home"
    for job in (json.load(open(f"{{folder}}/{{number}}.json")) for number in sorted(numbers)):
        last = job["array"].partition("-")[2]
        for index in range(int(last) + 1) if last else ["N/A"]:
            if job["cluster"] == cluster:
                print(job["name"], job["id"], index, "PENDING", "", "None", sep="|")
elif program == "sacct":
    sys.exit("accounting is not enabled")
"""
FILTERS = ("ACCOUNT", "PARTITION", "NAMES", "QOS", "LICENSES")


def write_programs(programs: Path, folder: Path) -> None:
    """Write the stand-ins into `programs`; they write down what they are given in `folder`."""
    for path in (programs, folder):
        path.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scontrol", "scancel"):
        (programs / name).write_text(PROGRAM.format(python=sys.executable, folder=str(folder), filters=FILTERS))
        (programs / name).chmod(0o700)


def given(folder: Path, what: str = "script") -> list[Any]:
    """The scripts that `sbatch` was given, or the environments that it saw, in order."""
    paths = sorted(folder.glob("*.json"), key=lambda path: int(path.stem))
    return [json.loads(path.read_text())[what] for path in paths]


def calls(folder: Path, program: str) -> list[list[str]]:
    """The arguments that a program was called with, in order."""
    found = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
    return [arguments for name, *arguments in found if name == program]
