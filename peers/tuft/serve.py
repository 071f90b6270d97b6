"""Starts TuFT from a configuration file. Its own command does the same, but refuses a configuration that has changed since
its last start, and that is what some tests are about.

Usage: TUFT_CPU_TEST=1 python serve.py CONFIG PORT BUSY

As long as there is a file BUSY, the toy behind the server takes no optimizer step, as a large model would take its time.
"""

import asyncio
import sys
from pathlib import Path

import uvicorn
import with_its_starter
from tuft.backends.training_backend import DummyTrainingBackend
from tuft.config import load_yaml_config
from tuft.persistence import get_redis_store
from tuft.server import create_root_app

config = load_yaml_config(Path(sys.argv[1]))
get_redis_store().configure(config.persistence)
busy = Path(sys.argv[3])
take_step = DummyTrainingBackend.optim_step


async def optim_step(self, *args, **kwargs):
    while busy.exists():
        await asyncio.sleep(0.1)
    return await take_step(self, *args, **kwargs)


DummyTrainingBackend.optim_step = optim_step
with_its_starter.live()
uvicorn.run(create_root_app(config), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
