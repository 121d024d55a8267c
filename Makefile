# The front door. `make` lists the targets; each sets up what it needs, then calls one program.
# Everything but the set-up lives in `python -m bench` and `python -m jobs`, which have a --help of their own.

.DEFAULT_GOAL := help
.PHONY: help setup data reproduce table verify report bench bench-forms test test-all lint clean distclean FORCE
MAKEFLAGS += --no-builtin-rules

# What a user or the environment set for pip must not send packages elsewhere than into .venv.
export PIP_USER := 0
unexport PIP_TARGET PIP_PREFIX PIP_ROOT

# $(call quoted,VARIABLE): its value as one word of the shell, whatever is in it
quoted = '$(subst ','\'',$(value $1))'
# $(call option,name,VARIABLE): " --name 'value'" where the variable is set, nothing otherwise
option = $(if $(value $2), --$1 $(call quoted,$2))

# An empty value comes from an unset shell variable: STORE="$$RESULTS" would train into this checkout.
OURS := EXPERIMENT STORE WORKERS RUNS_PER_GPU DEADLINE CLUSTER PROFILE RUNS_PER_JOB SEEDS RETRY PYTHON TORCH_INDEX BENCH_DATA_DIR
$(foreach name,$(OURS),$(if $(filter undefined,$(origin $(name))),,$(if $(value $(name)),,$(error $(name) is empty: give a value, or leave it out))))

PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
READY := .venv/.setup-done
TORCH := $(shell sed -n 's/^constraint-dependencies = \["\(torch==[^"]*\)"\].*/\1/p' pyproject.toml)

#? EXPERIMENT=NAME    what reproduce trains: smoke (seconds), laptop, paper, ...; by default what suits the machine
#? STORE=FOLDER       where records lie: reproduce writes to reproduced/, table and report use results/, unless named
#? WORKERS=N          runs trained side by side
#? RUNS_PER_GPU=N     runs trained side by side on each GPU, by default what cores and memory carry; with 1 their times count
#? DEADLINE=12m       reproduce ends by then: starts only what can end in time, saves the rest, and says how to go on
#? CLUSTER=slurm      reproduce submits what is missing to SLURM and returns; run it again for the table. See jobs/README.md
#? PROFILE=NAME       what the site wants of SLURM jobs: a name in jobs/profiles, or a .toml file
#? RUNS_PER_JOB=N     runs that one SLURM job does, one after the other
#? SEEDS=42,69        the seeds to train, in place of the experiment's own
#? RETRY=failed       try again what is recorded as failed, oom or diverged
#? PYTHON=COMMAND     the Python (3.11 or newer) under .venv; when named, its packages stay visible and its torch is kept
#? TORCH_INDEX=URL    where to take torch from, for another build than the usual one
#? BENCH_FULL=1       environment: bench measures the whole matrix, which takes four times as long
#? YES=1              distclean does not ask
#? BENCH_DATA_DIR     environment: a folder that holds tinyshakespeare/input.txt; without it the corpus is downloaded once

help:  ## list targets and variables
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@sed -n 's/^#? /  /p' Makefile

setup: $(READY)  ## make .venv and install everything into it; the other targets do this by themselves

data: $(READY)  ## find or download the corpus, and check it
	$(PY) -m bench data

reproduce: $(READY)  ## train what is missing, then print the table with the committed values beside yours
	$(PY) -m jobs reproduce$(call option,experiment,EXPERIMENT)$(call option,store,STORE)$(call option,workers,WORKERS)$(call option,runs-per-gpu,RUNS_PER_GPU)$(call option,deadline,DEADLINE)$(call option,seeds,SEEDS)$(call option,retry,RETRY)$(call option,cluster,CLUSTER)$(call option,profile,PROFILE)$(call option,runs-per-job,RUNS_PER_JOB)

table: $(READY)  ## make the tables from the records; trains nothing
	$(PY) -m bench table$(call option,store,STORE)

verify: $(READY)  ## judge the preprint's claims on the records; trains nothing
	@$(PY) -m bench verify$(call option,store,STORE) || case $$? in 3|4) ;; *) exit 1 ;; esac  # 3, 4: a verdict, no error

report: $(READY)  ## build report.html, one self-contained page, from the records; trains nothing
	$(PY) -m bench report$(call option,store,STORE)

MEASURED_INTO = $(if $(value STORE),$(call quoted,STORE),results)

bench: $(READY)  ## measure throughput and memory, and save what was measured for `make table`
	@mkdir -p $(MEASURED_INTO)/throughput
	$(PY) -m pytest tests/test_throughput.py --benchmark-only \
	    --benchmark-json=$(MEASURED_INTO)/throughput/"$$($(PY) -m bench device).json"
	@$(MAKE) --no-print-directory bench-forms

bench-forms: $(READY)  ## the last part of bench alone: the published forms of the recurrence in turn, which claim C6 is about
	@mkdir -p $(MEASURED_INTO)/throughput
	$(PY) -m pytest tests/test_published_forms.py --benchmark-only \
	    --benchmark-json=$(MEASURED_INTO)/throughput/"$$($(PY) -m bench device)-published-forms.json"

test: $(READY)  ## run the tests, two at a time, without the slow ones
	$(PY) -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(READY)  ## run all tests, two at a time
	$(PY) -m pytest -n 2 --dist loadfile

lint: $(READY)  ## check style, format and types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

clean:  ## remove caches
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks build *.egg-info
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean:  ## remove .venv and reproduced/ (your own runs) too; asks first
	@if [ $(call quoted,YES) != 1 ]; then \
	    printf 'Remove .venv and reproduced/, with every run you trained there? [y/N] '; \
	    read -r answer || answer=n; \
	    case "$$answer" in [yY]*) ;; *) echo 'Nothing removed.'; exit 1 ;; esac; \
	fi
	rm -rf .venv reproduced
	@$(MAKE) --no-print-directory clean

# --- Set-up: .venv, then torch, the locked packages and the project itself. Every step can be repeated. ---------------

# A named PYTHON other than the one that .venv was made from makes .venv anew. With none named, any .venv will do.
MADE_FROM := $(shell cat .venv/.made-from 2>/dev/null)
PARENT := $(or $(PYTHON),$(MADE_FROM))
ifneq ($(PARENT),$(MADE_FROM))
ANOTHER_PARENT := FORCE
endif
BASE := $(or $(PARENT),python3)

.venv/.made-from: $(ANOTHER_PARENT)
	@$(call quoted,BASE) -c "$$CHECK_PYTHON" $(call quoted,PARENT) \
	    || { echo 'Choose another: make PYTHON=/path/to/python3 (3.11 or newer)' >&2; exit 1; }
	@echo 'Making .venv from' $(call quoted,BASE)
	@$(call quoted,BASE) -m venv --clear .venv
	@[ -z $(call quoted,PARENT) ] || $(call quoted,BASE) -c "$$LIST_PACKAGE_FOLDERS" > "$$($(PY) -c "$$NAME_PTH_FILE")"
	@printf '%s\n' $(call quoted,PARENT) > $@

$(READY): .venv/.made-from requirements.lock pyproject.toml
	@{ [ -n $(call quoted,PARENT) ] && $(PY) -c "$$KEEP_TORCH"; } || { echo 'Installing $(TORCH)'; \
	    $(PIP) install$(call option,index-url,TORCH_INDEX) '$(TORCH)'; }
	@echo 'Installing the packages of requirements.lock'
	@$(PIP) install --quiet --no-deps --require-hashes -r requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@$(PIP) check || { [ -n $(call quoted,PARENT) ] && echo 'Going on: judge whether what that Python brought fits.'; }
	@touch $@

define CHECK_PYTHON
import os, platform, sys
version = ".".join(map(str, sys.version_info[:3]))
if sys.version_info < (3, 11):
    sys.exit("%s is Python %s, which is too old." % (sys.executable, version))
libc, number = platform.libc_ver()
lacks = None
if sys.platform == "darwin" and platform.machine() == "x86_64":
    lacks = "there is no torch 2.13 for Macs with Intel processors"
elif sys.platform == "linux" and (libc != "glibc" or tuple(map(int, number.split(".")[:2])) < (2, 28)):
    found = " ".join((libc, number)).strip() or "another C library"
    lacks = "the packages need Linux with glibc 2.28 or newer, and this has %s" % found
if lacks and sys.argv[1:] == [""]:
    sys.exit("This machine cannot install them: %s. A Python that has torch and the other packages would do." % lacks)
if lacks:
    print("WARNING: %s; going on with what %s has" % (lacks, sys.argv[1]), file=sys.stderr)
if os.path.realpath(sys.prefix) == os.path.realpath(".venv"):
    sys.exit("%s is the .venv that would be made anew; leave PYTHON= out to use it." % sys.executable)
endef

# --system-site-packages would not show the packages of a parent that is a virtual environment itself, so a .pth file
# names their folders, and those that the parent sees in turn. An editable install of another checkout stays unseen.
define LIST_PACKAGE_FOLDERS
import sys
print(*(folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))), sep="\n")
endef

define NAME_PTH_FILE
import sysconfig
print(sysconfig.get_path("purelib") + "/parent.pth")
endef

define KEEP_TORCH
import importlib.metadata, importlib.util, sys
if importlib.util.find_spec("torch") is None:
    sys.exit("No torch there yet.")
version = importlib.metadata.version("torch")
if tuple(map(int, version.split(".")[:2])) < (2, 10):
    sys.exit("torch %s is too old." % version)
print("Keeping torch", version)
endef

export CHECK_PYTHON LIST_PACKAGE_FOLDERS NAME_PTH_FILE KEEP_TORCH
