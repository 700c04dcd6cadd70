"""
Freezer for Lightning: `lightning` or `pytorch_lightning`, whichever the script has.

    trainer = Trainer(callbacks=[pyfreezer.lightning.FreezerCallback()])
    trainer.fit(model)                               # freezerctl freezes and unfreezes while it trains

FreezerCallback  attaches the module to freezerd; rules= brings rules along.
Freezer          takes the place of project-lighter's callback of this name: the same arguments, the same errors, the
                 same flags at the same batches. It needs no freezerd: where none is running it starts its own.
"""

from ._lightning_callback import FreezerCallback
from ._lightning_freezer import Freezer

__all__ = ["Freezer", "FreezerCallback"]
