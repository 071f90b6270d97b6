"""Starts TuFT from a configuration file. Its own command does the same, but refuses a configuration that has changed since
its last start, and that is what some tests are about.

Usage: TUFT_CPU_TEST=1 python serve.py CONFIG PORT
"""

import sys
from pathlib import Path

import uvicorn
import with_its_starter
from tuft.config import load_yaml_config
from tuft.persistence import get_redis_store
from tuft.server import create_root_app

config = load_yaml_config(Path(sys.argv[1]))
get_redis_store().configure(config.persistence)
with_its_starter.live()
uvicorn.run(create_root_app(config), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
