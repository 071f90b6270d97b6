"""The log-probabilities that the official Python SDK reads for some texts on a fresh model, as JSON.

Usage: python one_pass.py BASE_URL BASE_MODEL RANK SEED TEXT...
"""

import json
import os
import sys

import tinker
from tinker import types

base_url, base_model, rank, seed, *texts = sys.argv[1:]
service = tinker.ServiceClient(base_url=base_url, api_key="tml-peer")
client = service.create_lora_training_client(base_model=base_model, rank=int(rank), seed=int(seed))
data = []
for text in texts:
    tokens = list(text.encode())
    inputs = {"target_tokens": tokens[1:], "weights": [1.0] * (len(tokens) - 1)}
    data.append(types.Datum(model_input=types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=inputs))
result = client.forward(data, "cross_entropy").result(120)
print(json.dumps([one["logprobs"].data for one in result.loss_fn_outputs]), client.model_id, flush=True)
os._exit(0)
