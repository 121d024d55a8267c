"""How one run is made. The files, by concept:

Configs and records
    config          configs of runs, their run ids, overrides from the command line
    record          the JSON that a run writes; manifests of experiments; proofs of old records
    plain           the parts of a record that are plain JSON, and their types
    store           the folder that holds records, and throughput measurements
    dotted          configs as dotted keys, and their differences
    sources         the fingerprint of the files that decide numbers, the commit, and whether a record matches both
    worktree        the files of another commit, in a temporary folder
Data
    corpora         the corpora by name, with their sha256
    fetch           finding or downloading a corpus
    corpus          a corpus as token ids
    synthetic       a generated text of known entropy rate
    batches         which windows each step reads: a function of (seed, step)
Training and evaluation
    run             one run from start to record: resume, train, evaluate, checkpoint
    train           one optimizer step, in mode exact or fast
    schedule        learning rates
    capture         a training step as a CUDA graph
    allocator       malloc settings for training on a CPU
    evaluate        the three protocols of validation loss; the step with the lowest
    history         the measurements of a run so far
    budget          parameters, FLOPs and memory of a model
    workload        the size of a training step and of evaluations: what two runs must share to take equally long
    sample          text from a trained model
    profile         time of a training step by kind of operation
Resuming after a kill
    checkpoint      states on disk, written atomically, verified by sha256
    lease           which process works on a run
    files           atomic writes, and waiting for files of other machines
    recording       from a finished run to its record
    step_curve      losses by step on disk
    stopwatch       training seconds across attempts
    portable        first losses whose bits are the same on every x86 CPU
    repeat          `bench rerun`: a run again, from its record
Processes and programs
    __main__        `python -m bench`
    app             its commands that read records
    commands        its commands that train or measure
    cli             what both command lines share
    listing         `bench list`
    errors          errors, exit codes and the parts that messages share
    process         stop signals, progress files, cores
    limits          memory and CPU time that a process may use
    memory          whether a model can fit on this machine
    child           a process that answers requests, one JSON line each
    environment     the machine and the software of an attempt
Folders
    experiments     cells, recipes, seeds, matched sizes
    report          everything that only reads records
    recheck         old records under new sources
    transfer        records from and to other machines
    cuda            `bench cuda-check`
"""
