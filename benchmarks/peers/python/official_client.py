"""What the official Python SDK costs the process that uses it. Each measure warms up, works against the clock and prints
numbers.

  encode DATUMS TOKENS ROUNDS        ms to encode a batch, and to make it out of lists and encode it
  sample URL CONCURRENT ROUNDS       µs of CPU time, all threads together, that a request takes
  futures URL CONCURRENT ROUNDS      the same for an operation of a training client whose result is awaited
  runs FILE ROUNDS                   ms to decode a list of runs, given as a JSON array of the server's pages
"""

import gc
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
os.environ["TINKER_TELEMETRY"] = "0"  # as ours is where nobody asks for it

import tinker  # noqa: E402
from tinker import types  # noqa: E402

BASE_MODEL = "tiny/byte-lm-16"


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def timed(work: Any) -> float:
    gc.collect()
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def encode(datums: int, length: int, rounds: int) -> list[float]:
    from tinker.lib.public_interfaces import training_client
    from tinker.proto.request_conv import forward_backward_request_to_proto
    from tinker.types.client_config_response import ClientConfigResponse

    lists = [[(row * 31 + i * 7) % 150_000 for i in range(length)] for row in range(datums)]
    weights = [1.0] * length

    def make() -> list[types.Datum]:
        return [
            types.Datum(
                model_input=types.ModelInput.from_ints(tokens),
                loss_fn_inputs={"target_tokens": tokens, "weights": weights},
            )
            for tokens in lists
        ]

    # the client's own way to cut a batch, without the connection that it would otherwise need
    client = training_client.TrainingClient.__new__(training_client.TrainingClient)
    client.holder = type("Holder", (), {"_client_config": ClientConfigResponse()})()

    def to_bytes(data: list[types.Datum]) -> int:
        total = 0
        for seq, chunk in enumerate(client._chunked_requests_generator(data)):
            part = chunk.data if hasattr(chunk, "data") else chunk
            request = types.ForwardBackwardRequest(
                forward_backward_input=types.ForwardBackwardInput(data=part, loss_fn="cross_entropy"),
                model_id="model",
                seq_id=seq + 1,
            )
            total += len(forward_backward_request_to_proto(request).SerializeToString())
        return total

    data = make()
    to_bytes(data)
    encoded = [timed(lambda: to_bytes(data)) for _ in range(rounds)]
    made = [timed(lambda: to_bytes(make())) for _ in range(rounds)]
    return [median(encoded), median(made)]


def settled(value: Any) -> Any:
    return value.result() if hasattr(type(value), "result") else value


def service(url: str) -> Any:
    return tinker.ServiceClient(base_url=url, api_key="tml-bench")


def cpu_per_request(count: int, rounds: int, one_round: Any) -> list[float]:
    for _ in range(rounds):
        one_round()
    gc.collect()
    before = time.process_time()
    for _ in range(rounds):
        one_round()
    return [(time.process_time() - before) * 1e6 / (count * rounds)]


def sample(url: str, concurrent: int, rounds: int) -> list[float]:
    sampler = settled(service(url).create_sampling_client(base_model=BASE_MODEL))
    params = types.SamplingParams(max_tokens=16, seed=1)
    prompts = [types.ModelInput.from_ints([(i * 7 + row) % 256 for i in range(256)]) for row in range(concurrent)]

    def one_round() -> None:
        futures = [sampler.sample(prompt=prompt, num_samples=1, sampling_params=params) for prompt in prompts]
        for future in futures:
            future.result()

    return cpu_per_request(concurrent, rounds, one_round)


def futures(url: str, concurrent: int, rounds: int) -> list[float]:
    client = settled(service(url).create_lora_training_client(base_model=BASE_MODEL, rank=8))
    adam = types.AdamParams(learning_rate=1e-4)

    def one_round() -> None:
        for future in [client.optim_step(adam) for _ in range(concurrent)]:
            future.result()

    return cpu_per_request(concurrent, rounds, one_round)


def runs(file: str, rounds: int) -> list[float]:
    import orjson
    from tinker._models import validate_type

    pages = [json.dumps(page).encode() for page in json.loads(Path(file).read_text())]

    def decode() -> int:
        # what the client does with the bytes of an answer
        decoded = [validate_type(type_=types.TrainingRunsResponse, value=orjson.loads(page)) for page in pages]
        return sum(len(page.training_runs) for page in decoded)

    decode()
    return [median([timed(decode) for _ in range(rounds)])]


measure, *rest = sys.argv[1:]
measures = {"encode": encode, "sample": sample, "futures": futures, "runs": runs}
print(*measures[measure](*(int(one) if one.isdigit() else one for one in rest)), flush=True)
os._exit(0)  # the client's threads would keep the process for a while
