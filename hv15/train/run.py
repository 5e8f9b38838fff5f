"""Runs a whole training: claims the folder, loads, resumes, trains, writes the LoRA and its summary."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hv15.cache.batches import Readable, Stores, TrainingItem
from hv15.config import Settings
from hv15.config.train import TrainSettings
from hv15.errors import UserError
from hv15.lora import LoRANetwork
from hv15.models import DiT
from hv15.models.condition import check_widths, widths_of
from hv15.models.dit_files import checkpoint_dtype
from hv15.models.ready import load_with_settings, reset, set_up
from hv15.out_of_memory import memory_advice
from hv15.precision import named_dtype, pick_device, pick_dtype
from hv15.records.json_values import JsonObject
from hv15.records.paths import ProjectPaths
from hv15.records.training import TrainingRecord
from hv15.train.beginning import load_origin
from hv15.train.checkpoints import CheckpointRule, Checkpoints
from hv15.train.examples import EMPTY_CAPTION, ExampleReader
from hv15.train.folder import claim_folder
from hv15.train.gradient_sum import GradientSum
from hv15.train.loop import BetweenSteps, LoopSettings, Trainer
from hv15.train.lora_writer import LoRAWriter
from hv15.train.losses import LossFunction
from hv15.train.metadata import device_name, lora_metadata
from hv15.train.moving_average import MovingAverage
from hv15.train.networks import make_network
from hv15.train.optimizer_step import OptimizerStep
from hv15.train.optimizers import make_optimizer, refuse_norm_limit
from hv15.train.origin import Origin, refuse_finished
from hv15.train.past import past_of
from hv15.train.segments import segment
from hv15.train.state import locked
from hv15.train.step_batches import StepBatches
from hv15.train.stopping import Stopping
from hv15.train.summary import summarise
from hv15.train.timesteps import SigmaRule
from hv15.train.trackers import Trackers, flat
from hv15.train.validation import make_validation
from hv15.train.weight_norms import NormLimit
from hv15.train.weighting import LossWeight

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hv15.train.previews import PreviewPlan

log = logging.getLogger(__name__)


def train(
    settings: Settings,
    spec: JsonObject,
    items: Sequence[TrainingItem],
    stores: Stores,
    output: Path,
    *,
    dit_path: Path,
    held_out: Sequence[TrainingItem] = (),
    previews: PreviewPlan | None = None,
    until: int | None = None,
) -> None:
    """Train a LoRA, or resume the training of an earlier call with the same spec, and write it to `output`.

    Everything else is written to `train/` beside the output: see hv15.train.state.

    Args:
        spec: everything that the result depends on; what was saved with another past of it is moved aside.
        items: the dataset; their order does not matter.
        dit_path: the base model's file or folder.
        held_out: what is not trained on but measured; none without validation.
        previews: what can be sampled while it trains.
        until: the step after which it stops as if it were asked to; None: it trains to its end.

    Raises:
        UserError: any problem that a user can fix; saved states are kept.
        SystemExit: code 3 after SIGTERM, Ctrl-C or the step `until`; the state is saved, and the same call resumes it.
    """
    check_items(settings.train, [*items, *held_out], stores)
    accelerator = make_accelerator(settings.runtime.device)
    dtype = pick_dtype(settings.train.dtype, accelerator.device)
    check_dtype(dit_path, dtype)
    with memory_advice():
        dit = load_with_settings(dit_path, settings.train, device=accelerator.device, dtype=dtype)
    for item in (stores.latents.read(items[0].clip), stores.texts.read(items[0].caption)):
        check_widths(dit.config, widths_of(item))
    train_dit(
        settings,
        spec,
        items,
        stores,
        output,
        dit=dit,
        accelerator=accelerator,
        base_name=dit_path.name,
        held_out=held_out,
        previews=previews,
        until=until,
    )


def train_dit(
    settings: Settings,
    spec: JsonObject,
    items: Sequence[TrainingItem],
    stores: Stores,
    output: Path,
    *,
    dit: DiT,
    accelerator: Accelerator,
    base_name: str | None = None,
    held_out: Sequence[TrainingItem] = (),
    previews: PreviewPlan | None = None,
    until: int | None = None,
) -> None:
    """Do the same as `train` with a base model in memory, on the accelerator's device; the model is not changed.

    Raises:
        UserError: as `train`.
        SystemExit: as `train`.
    """
    options, paths = settings.train, ProjectPaths()
    folder = output.parent / paths.training.name
    check_processes(options, accelerator.num_processes)
    record, origin = TrainingRecord(past_of(options, spec), settings.dump()), Origin.of_spec(spec)
    device, batches = device_name(accelerator.device), make_batches(options, items, origin)
    total = batches.total_steps(options.max_train_steps, options.max_train_epochs)
    if origin is not None:
        refuse_finished(origin, total)
    with ExitStack() as undo:
        undo.callback(reset, dit)
        with memory_advice():
            set_up(dit, options, accelerator.device)
        network = make_network(settings, dit)
        undo.callback(network.detach)
        optimizer_step = make_optimizer_step(options, dit, network, accelerator.device, accelerator.num_processes)

        def metadata(step: int) -> dict[str, str]:
            return lora_metadata(
                settings,
                spec,
                items,
                step=step,
                epochs=batches.epochs(step),
                base=dit.config,
                device=device,
                base_name=base_name,
                segments=() if origin is None else (*TrainingRecord.load(folder).segments, segment(origin)),
            )

        writer = LoRAWriter(
            network, optimizer_step.optimizer, optimizer_step.average, metadata, named_dtype(options.save_precision)
        )
        between, stopping = list[BetweenSteps](), Stopping()
        if held_out:
            best = folder / paths.best.relative_to(paths.training)
            validation = make_validation(
                settings, held_out, items, stores, batches, optimizer_step, network, writer, best, accelerator
            )
            between, stopping = [validation], validation.stopping
        between.append(
            Checkpoints(
                CheckpointRule.from_settings(options),
                batches,
                folder / paths.checkpoints.name,
                writer.write,
                accelerator.is_main_process,
            )
        )
        on_request = None
        if previews is not None:
            from hv15.train.previews import make_previews  # decoding needs av

            on_request = make_previews(
                options, previews, batches, folder, dit, network, writer, stores.texts, accelerator
            )
            between.append(on_request)
        observers = []
        if options.trackers:
            trackers = Trackers(options.trackers, options.tracker_project, folder, flat(settings.dump()))
            undo.callback(trackers.close)
            observers.append(trackers)
        trainer = Trainer(
            settings=LoopSettings.from_settings(options, total),
            optimizer_step=optimizer_step,
            batches=batches,
            reader=make_reader(settings, stores),
            accelerator=accelerator,
            folder=folder,
            spec=record.digest,
            between=between,
            observers=observers,
            on_request=on_request,
            stopping=stopping,
            until=until,
            begin=None
            if origin is None
            else partial(
                load_origin,
                origin,
                folder / paths.origin.name,
                optimizer_step,
                optimizer_type=options.optimizer_type,
                batches_per_step=batches.batches_per_step,
            ),
        )
        if not accelerator.is_main_process:
            accelerator.wait_for_everyone()
            trainer.resume()
            return
        with locked(folder):
            named = settings.resolve(options.continue_from) if options.continue_from else None
            claim_folder(folder, record, total, named=named)
            accelerator.wait_for_everyone()
            writer.write(output, trainer.resume())
            summary = summarise(folder / paths.metrics.name, accelerator.device)
            summary.write(folder / paths.summary.name)
    losses = f"loss {summary.loss_first:.4f} at the start, {summary.loss_last:.4f} at the end"
    print(f"{losses} (each the mean over a tenth of the steps)", file=sys.stderr)
    if (lowest := stopping.standing).best_loss is not None:
        print(f"validation loss {lowest.best_loss:.4f} after step {lowest.best_step}, the lowest", file=sys.stderr)


def make_batches(options: TrainSettings, items: Sequence[TrainingItem], origin: Origin | None) -> StepBatches:
    """Return the steps of a training, which count on from its origin.

    Raises:
        UserError: there are no items, or none in some steps.
    """
    step, samples = (0, 0) if origin is None else (origin.step, origin.samples)
    return StepBatches.of_items(
        items,
        options.seed,
        options.gradient_accumulation_steps,
        options.num_processes,
        step=step,
        samples=samples,
    )


def make_accelerator(device: str) -> Accelerator:
    """Return the accelerator for `runtime.device`; under `accelerate launch` each process has its own GPU.

    Raises:
        UserError: there is no such device.
    """
    from accelerate import Accelerator

    wanted = pick_device(device)
    if wanted.type == "cuda" and wanted.index is not None:
        torch.cuda.set_device(wanted)
    return Accelerator(cpu=wanted.type == "cpu", mixed_precision="no")


def make_optimizer_step(
    options: TrainSettings,
    dit: DiT,
    network: LoRANetwork,
    device: torch.device,
    processes: int = 1,
) -> OptimizerStep:
    """Return the step that updates a LoRA's weights; the planner uses this function, too.

    Args:
        processes: all that train together, those that share their batches (`context_parallel`) included.

    Raises:
        UserError: the optimizer cannot be made, or settings do not fit together.
    """
    groups = network.parameter_groups(options.learning_rate, options.loraplus_lr_ratio, options.layer_rates)
    optimizer = make_optimizer(options.optimizer_type, groups, options.optimizer_args)
    refuse_norm_limit(options, optimizer)
    most, over_processes = options.scale_weight_norms, None
    if processes > 1:
        # While ranks exchange tokens or weights in a backward pass, sums could not begin in the same order on all.
        overlap = options.context_parallel == 1 and not options.shard_base
        over_processes = GradientSum(list(network.parameters()), overlap=overlap)
    average = None
    if options.ema_decay:
        staged = options.ema_device == "cpu" and device.type != "cpu"
        average = MovingAverage(dict(network.named_parameters()), options.ema_decay, staged=staged)
    return OptimizerStep(
        dit=dit,
        network=network,
        optimizer=optimizer,
        device=device,
        seed=options.seed,
        max_grad_norm=options.max_grad_norm,
        loss=LossFunction(options),
        over_processes=over_processes,
        norm_limit=None if most is None else NormLimit(network.branches, most),
        average=average,
    )


def make_reader(settings: Settings, stores: Stores) -> ExampleReader:
    """Return the reader of training examples; for t2v it never uses images, even if they are stored."""
    options = settings.train
    return ExampleReader(
        stores,
        options.seed,
        SigmaRule(options),
        LossWeight.from_settings(options),
        i2v_prob=settings.i2v_prob,
        caption_dropout=options.caption_dropout,
    )


def check_processes(options: TrainSettings, processes: int) -> None:
    """Check that as many processes run as the settings say; their number is part of what the LoRA depends on.

    Raises:
        UserError: another program has started another number.
    """
    if options.gpus != processes:
        raise UserError(
            f"{processes} processes were started, but train.num_processes ({options.num_processes}) and "
            f"train.context_parallel ({options.context_parallel}) need {options.gpus}",
            hint="run `hv15 train` without a launcher: it starts the processes itself",
        )


def check_dtype(dit_path: Path, dtype: torch.dtype) -> None:
    """Check the weights' number format, from the header alone.

    Raises:
        UserError: the weights are float16, but training would compute in bfloat16 (`dtype`).
    """
    if dtype == torch.bfloat16 and checkpoint_dtype(dit_path) == torch.float16:
        raise UserError.at(
            dit_path,
            "float16 weights, which bfloat16 training would round a second time",
            hint="use the bfloat16 or float32 file of the same model, or set train.dtype to float32",
        )


def check_items(options: TrainSettings, items: Sequence[TrainingItem], stores: Stores) -> None:
    """Check, before a model is loaded, that the store still has all items that the training will read.

    Raises:
        UserError: items are missing.
    """
    clips, captions = set[str](), set[str]()
    for item in items:
        clips.add(item.clip)
        captions.update(item.variants or (item.caption,))
    if options.caption_dropout:
        captions.add(EMPTY_CAPTION)
    needed: list[tuple[str, Readable, set[str]]] = [
        ("clips", stores.latents, clips),
        ("captions", stores.texts, captions),
    ]
    if stores.masks is not None:
        needed.append(("masks", stores.masks, {item.mask for item in items if item.mask}))
    for kind, store, keys in needed:
        if missing := sorted(key for key in keys if not store.has(key)):
            raise UserError(
                f"{len(missing)} of {len(keys)} encoded {kind} are missing from the cache (first: {missing[0][:12]})",
                hint="run `hv15 repair`, then start the run again, which encodes them again",
            )
