"""The parts of dav's training step, each timed as a program of its own.

A part's share is its time over the whole step's, both measured in turns in one process. Shares need
not add up to 100 %: alone a part reads its inputs and writes its results, which inside the step
stay where they are, and the compiler merges the parts' borders. Network parts are forward and
backward passes for all images, the frozen encoder a forward pass for the unlabelled ones, losses
with the gradients of maps and tokens, perturbations with CutMix and normalisation, the optimiser
with clipping and the check for finite values.
"""

import contextlib
import statistics

import train_step_runtimes


def time_parts(case):
    """{part: {seconds, share}} and figures about the step as a whole."""
    from dav.runtime.memory import keep_freed_memory

    keep_freed_memory()
    from dav import recipe_network
    from dav.runtime import perf

    config = train_step_runtimes.make_config(case)
    step, parts = make_step(config, case), make_parts(config, case)
    side = train_step_runtimes.product_side()
    product = train_step_runtimes.jax_product(side, case["dtype"])
    calls = {"step": step, **parts, "matmul": product}
    seconds = {name: [] for name in calls}
    for turn in range(case["turns"] + 2):  # two to compile and warm up
        for name, run in calls.items():
            spent = train_step_runtimes.timed(run)
            if turn >= 2:
                seconds[name].append(spent)
    if case["profile"]:
        write_profile(case, step)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    flop = perf.training_flops(
        recipe_network.architecture(config),
        recipe_network.crop_grid(config),
        case["labelled"] + case["unlabelled"],
        frozen_images=case["unlabelled"],
    )
    return summarise(medians, flop, 2 * side**3)


def summarise(medians, flop, product_flop):
    step, limit = medians["step"], product_flop / medians["matmul"]
    figures = {
        name: {"seconds": seconds, "share": seconds / step}
        for name, seconds in medians.items()
        if name != "matmul"
    }
    return figures | {
        "perturbations_and_losses_share": (medians["perturbations"] + medians["losses"]) / step,
        "step_gflop": flop / 1e9,
        "matmul_gflop_per_s": limit / 1e9,
        "share_of_matmul_rate": flop / step / limit,
        **mfu(flop / step),
    }


def mfu(flop_per_s):
    """Share of the device's published peak, where perf knows it."""
    from dav.runtime import perf

    peak = getattr(perf, "peak_flops_per_s", lambda: None)()
    return {"mfu": flop_per_s / peak} if peak else {}


def make_step(config, case):
    import jax

    from dav import recipe

    trainer = recipe.make_trainer(config)
    holder, frozen = {"state": trainer.init()}, trainer.frozen()
    batch = jax.device_put(train_step_runtimes.make_batch(case))

    def step():
        holder["state"], _ = trainer.step(holder["state"], frozen, batch)
        jax.block_until_ready(holder["state"])

    return step


def make_parts(config, case):
    """{name: a function that runs the part and waits for it}."""
    import jax
    import jax.numpy as jnp

    from dav import recipe, recipe_network, recipe_update
    from dav import step as steps
    from dav.models.depth_anything import make_encoder
    from dav.models.dpt import Decoder

    model, update = recipe_network.make_model(config), recipe_update.make_update(config)
    objective, size = recipe.make_objective(config), model.architecture
    encoder = make_encoder(size, dtype=model.dtype, remat=model.remat)
    decoder = Decoder(size.features, size.reassemble, dtype=model.dtype)
    batch = jax.device_put(train_step_runtimes.make_batch(case))
    key, crop_px = jax.random.key(0), tuple(config.crop_px)
    state = jax.jit(lambda: steps.init_state(key, model=model, update=update, crop_px=crop_px))()
    params = state.params
    asked = jax.jit(lambda batch: steps.ask(batch, 0, 0, objective))(batch)
    images = jnp.concatenate([part["image"] for part in asked.values()])

    def encode(params, image):
        return encoder.apply({"params": params}, image)

    def decode(params, taps):
        return decoder.apply({"params": params}, taps)

    taps = jax.jit(encode)(params["encoder"], images)
    maps = jax.jit(decode)(params["decoder"], taps)
    ends = {"labelled": slice(case["labelled"]), "unlabelled": slice(case["labelled"], None)}
    answers = {kind: (maps[at], taps[-1][at]) for kind, at in ends.items()}
    asked["unlabelled"]["frozen"] = answers["unlabelled"][1]
    unlabelled = asked["unlabelled"]["image"]
    jitted = {
        "encoder": (jax.grad(mean_of(encode)), params["encoder"], images),
        "decoder": (jax.grad(mean_of(decode), argnums=(0, 1)), params["decoder"], taps),
        "frozen encoder": (lambda p, x: encode(p, x)[-1], params["encoder"], unlabelled),
        "losses": (jax.grad(loss_of(objective)), answers, asked),
        "perturbations": (lambda batch: steps.ask(batch, 0, 0, objective), batch),
    }
    parts = {name: waiting(jax.jit(run), inputs) for name, (run, *inputs) in jitted.items()}
    return parts | {"optimiser": make_update_part(steps, state, update)}


def mean_of(function):
    """(parameters, input) → the mean of all that a function of them gives."""
    import jax

    def mean(params, x):
        return sum(leaf.mean() for leaf in jax.tree.leaves(function(params, x)))

    return mean


def loss_of(objective):
    """(maps and tokens by kind, what is asked) → the step's own loss."""
    from dav import step as steps

    def loss(answers, asked):
        sums, counts = steps.measure_terms(answers, asked, objective=objective)
        return steps.total_loss(sums, counts, objective)

    return loss


def waiting(run, inputs):
    import jax

    return lambda: jax.block_until_ready(run(*inputs))


def make_update_part(steps, state, update):
    """An update by gradients like the parameters, which gives its state's memory away."""
    import functools

    import jax
    import jax.numpy as jnp

    grads = jax.tree.map(jnp.copy, state.params)
    metrics = {"loss": jnp.ones(()), "grad_norm": jnp.ones(())}
    run = jax.jit(functools.partial(steps.apply_update, update=update), donate_argnums=0)
    holder = {"state": jax.tree.map(jnp.copy, state)}

    def part():
        holder["state"], _ = run(holder["state"], grads, metrics)
        jax.block_until_ready(holder["state"])

    return part


def write_profile(case, step):
    """XLA's profile of three steps, one folder a case."""
    import jax

    name = f"{case['size']}_{'x'.join(map(str, case['crop_px']))}"
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.profiler.trace(f"{case['profile']}/{name}"))
        for number in range(3):
            with jax.profiler.StepTraceAnnotation("train", step_num=number):
                step()
