"""Starts processes that label, forked off one that has imported everything: so each starts quickly.

Reads a JSON line a command: {"start": [argument, …], "log": file, "place": number, "pause_s": how
long every shard's first image is held up} is answered with the process's number, {"wait": number}
with its exit code, negative for a signal.
"""

import json
import os
import sys
import time


def main():
    from dav import main as entry

    entry.quieten()
    import dav.auto
    import dav.evaluation_job
    import dav.label  # noqa: F401 - what dav.main imports once it runs

    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            _, status = os.waitpid(command["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if not answer:
                os._exit(run(entry, command))
        print(answer, flush=True)


def run(entry, command):
    log = os.open(command["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ["JOB_COMPLETION_INDEX"] = str(command["place"])
    slow_down(command["pause_s"])
    code = entry.main(["dav.main", *command["start"]])
    sys.stdout.flush()
    return code


def slow_down(pause_s):
    """Little work would be done before anything can happen to it."""
    from dav.data.sources import ShardRecords

    read = ShardRecords.__getitem__

    def read_slowly(records, index):
        time.sleep(0 if index else pause_s)
        return read(records, index)

    ShardRecords.__getitem__ = read_slowly


if __name__ == "__main__":
    main()
