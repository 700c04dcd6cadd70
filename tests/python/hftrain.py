# hftrain.py - what the tests of the adapters for Hugging Face's libraries train: a tiny GPT-2 with random weights.
"""
Nothing is downloaded. Everything is seeded, so two Trainers with the same flips are equal to the last bit.
"""

import os
import threading

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_NO_ADVISORY_WARNINGS="1", ACCELERATE_USE_CPU="1")

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments  # noqa: E402

torch.set_num_threads(1)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

LENGTH = 8
WORDS = 32


def model(layers=3, seed=1):
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=WORDS, n_positions=LENGTH, n_embd=16, n_layer=layers, n_head=2, bos_token_id=0, eos_token_id=0
        )
    )


def data(samples=64, seed=2):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, WORDS, (samples, LENGTH), generator=generator)
    return [{"input_ids": row, "labels": row} for row in rows]


class Conductor(TrainerCallback):
    """Runs a generator, one step of it behind each optimizer step, and ends the training with it."""

    def __init__(self, story):
        self.story = story
        self.steps = 0

    def on_step_end(self, args, state, control, **_):
        self.steps = state.global_step
        try:
            next(self.story)
        except StopIteration:
            control.should_training_stop = True


def command(scene, results, *words):
    """A part of a story: a change by freezerctl while the training goes on."""
    thread = threading.Thread(target=lambda: results.append(scene.ctl(*words, "--yes", "--json")))
    thread.start()
    while thread.is_alive():
        yield
    thread.join()


def steps(count):
    """A part of a story: some steps in which nothing happens."""
    for _ in range(count):
        yield


class Flips(TrainerCallback):
    """By hand, at the start of these steps: (step, prefix, requires_grad)."""

    def __init__(self, *flips):
        self.flips = flips

    def on_step_begin(self, args, state, control, model=None, **_):
        for step, prefix, requires_grad in self.flips:
            if step == state.global_step:
                for name, parameter in model.named_parameters():
                    if name.startswith(prefix):
                        parameter.requires_grad = requires_grad
                        parameter.grad = None


def trainer(scene, callbacks, trained=None, folder="out", **options):
    arguments = {
        "output_dir": scene.path(folder),
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "lr_scheduler_type": "constant",  # a schedule would depend on max_steps
        "max_steps": 100000,
        "logging_steps": 100000,
        "save_strategy": "no",
        "seed": 3,
        "dataloader_pin_memory": False,
    }
    made = Trainer(
        model=trained if trained is not None else model(),
        args=TrainingArguments(**{**arguments, **options}),
        train_dataset=data(),
        callbacks=list(callbacks),
    )
    made.remove_callback(transformers.PrinterCallback)
    return made
