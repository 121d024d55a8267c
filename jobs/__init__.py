"""Where runs execute. The files, by concept:

    __main__        `python -m jobs`
    app             its commands launch and reproduce
    watching        its commands status, why, logs, cancel, retry, gc, doctor
Launching
    launch          from an experiment to its missing runs, and the pool that does them
    grid            which runs are missing or wanted
    outcome         what `jobs` uses of the reports: the rules' hash, tables and verdicts
    cost, speeds    how long runs take, from records and measurements
    probe           a few steps of a run, timed
    forecast        how a launch will go
    deadline        launches that must end by a given time
Running
    local           a pool of worker processes on this machine
    queue           which run starts next, on which slot
    slots           devices, and how many runs fit on them
    attempt         one worker process, seen from its launcher
    worker          the process that does one run
    cache           the compile cache
    meter           the share of time that each GPU trains
    display         progress in the terminal
Looking after runs
    status, why     the state of each run; the likely cause of one
    control         cancel, retry, clean up
    doctor          checks of a machine
    layout          names of files in run folders
SLURM
    slurm           site profiles, arrays, commands, paths, the scheduler, submissions, tasks
"""
