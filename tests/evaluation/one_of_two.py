"""One of two processes that evaluate together: INDEX ADDRESS, then the command's arguments."""

import sys

import jax

from dav import evaluate

index, address, *arguments = sys.argv[1:]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(address, num_processes=2, process_id=int(index))
code = evaluate.main(["dav.evaluate", *arguments])
jax.distributed.shutdown()
sys.exit(code)
