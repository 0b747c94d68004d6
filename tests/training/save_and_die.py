"""Saves step 2 into a folder and kills this process on the way: `save_and_die.py FOLDER operation|file N`.

operation N: before the Nth thing that Python does to the folder: a file opened, a folder made, a name changed.
file N: when the Nth file is there, for the files that TensorStore writes without Python.
Prints the number of operations and files where it lives to the end.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from small_checkpoints import items_of

from transformer_jax.training.checkpoints import Checkpoints


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder, kind, at):
    operations, most = 0, 0
    before = sum(path.is_file() for path in folder.rglob("*"))

    def count(event, arguments):
        nonlocal operations
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") and str(folder) in str(arguments[0]):
            operations += 1
            if kind == "operation" and operations == at:
                die()

    def watch():
        nonlocal most
        while not done.is_set():
            files = sum(len(names) for _, _, names in os.walk(folder)) - before
            most = max(most, files)
            if kind == "file" and files >= at:
                die()
            time.sleep(0)

    done = threading.Event()
    watcher = threading.Thread(target=watch)
    with Checkpoints(folder, newest=2) as checkpoints:
        sys.addaudithook(count)
        watcher.start()
        checkpoints.save(2, items_of(2), {"epoch": 2})
        checkpoints.wait()
    done.set()
    watcher.join()
    print(operations, most)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
