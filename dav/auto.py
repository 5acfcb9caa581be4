"""The default job: prints the plan, then runs what is missing, in order."""

import time

from dav import folders, plan, prepare, recipe
from dav.runtime.memory import return_freed_memory
from dav.runtime.telemetry import format_duration


def auto(config, paths):
    """Runs every unfinished stage of the recipe; says so when there is none."""
    stages = plan.show(config, paths)
    if all(stage.done for stage in stages):
        return
    prepare.check_root(config, paths)
    recipe.check_trainable(config)
    if folders.trains_teacher(config):
        recipe.check_trainable(folders.teacher_config(config, paths), "config.teacher")
    for stage in stages:
        if stage.done:
            continue
        print(f"\n— {stage.name}", flush=True)
        begin = time.monotonic()
        stage.run()
        print(f"{stage.name} took {format_duration(time.monotonic() - begin)}", flush=True)
        return_freed_memory()
