"""One thread: tests work on small tensors, and threads of a busy machine wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, also by subprocesses
