"""SkyRL's JAX backend uses peft to write `adapter_config.json` and for nothing else."""

import json
from pathlib import Path
from typing import Any


class LoraConfig:
    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def save_pretrained(self, folder: str) -> None:
        Path(folder, "adapter_config.json").write_text(json.dumps(self.settings, default=str, indent=2))
