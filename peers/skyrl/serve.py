"""Starts SkyRL's Tinker API with its engine as a plain child process, where the original would ask `uv` to start it.

Usage: python serve.py --host 127.0.0.1 --port N [the engine's own arguments]
"""

import argparse
import sys

import uvicorn
import with_its_starter
from skyrl.tinker import api
from skyrl.tinker.config import EngineConfig, add_model, config_to_argv

if not hasattr(api, "_build_uv_run_cmd_engine"):
    sys.exit("SkyRL starts its engine in another way than 0.4.0 did: adapt serve.py")


def engine_command(_parent: list[str], config: EngineConfig) -> list[str]:
    return [sys.executable, "-m", "skyrl.tinker.engine", *config_to_argv(config)]


api._build_uv_run_cmd_engine = engine_command

parser = argparse.ArgumentParser()
add_model(parser, EngineConfig)
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, required=True)
arguments = vars(parser.parse_args())
api.app.state.engine_config = EngineConfig.model_validate(
    {name: value for name, value in arguments.items() if name in EngineConfig.model_fields}
)
with_its_starter.live()
uvicorn.run(api.app, host=arguments["host"], port=arguments["port"], log_level="warning")
