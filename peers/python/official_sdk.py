"""Drives a Tinker server through the public surface of the official Python SDK, whichever version is installed.

Each case prints one line of JSON with what it saw, or with the error it met; it judges nothing. Floats go out with all
their digits, so that whoever reads them can compare bits; what JSON has no number for goes out as its name.

Usage: python official_sdk.py BASE_URL [CASE...]
"""

from __future__ import annotations

import io
import json
import math
import sys
import tarfile
import time
import traceback
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

warnings.simplefilter("ignore")

import tinker  # noqa: E402
from tinker import types  # noqa: E402

BASE_URL, *WANTED = sys.argv[1:]
MODEL = "tiny/byte-lm-16"
LIMIT = 30  # seconds that any one answer may take
VERSION = tuple(int(part) for part in tinker.__version__.split(".")[:2])

CASES: dict[str, Callable[[], Any]] = {}


def case(run: Callable[[], Any]) -> Callable[[], Any]:
    CASES[run.__name__] = run
    return run


def plain(value: Any) -> Any:
    """JSON that keeps every float."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    return value


def settled(value: Any) -> Any:
    """What a call gives, whether this version returns it or a future of it."""
    return value.result(LIMIT) if hasattr(type(value), "result") else value


def tokens(text: str) -> list[int]:
    return list(text.encode())


def datum(text: str, **inputs: Any) -> types.Datum:
    ids = tokens(text)
    return types.Datum(
        model_input=types.ModelInput.from_ints(ids[:-1]), loss_fn_inputs={"target_tokens": ids[1:], **inputs}
    )


def weighted(text: str) -> types.Datum:
    return datum(text, weights=[1.0] * (len(tokens(text)) - 1))


def judged(text: str) -> types.Datum:
    """A datum for the losses of reinforcement learning; the numbers are made up and exact in float32."""
    count = len(tokens(text)) - 1
    return datum(
        text,
        logprobs=[-5.5 + 0.125 * (i % 4) for i in range(count)],
        advantages=[(-1.0 if i % 3 == 0 else 1.0) * (0.5 + 0.25 * (i % 2)) for i in range(count)],
    )


TEXTS = ["the quick brown fox", "jumps over"]
LOSSES: list[tuple[str, dict[str, float] | None]] = [
    ("cross_entropy", None),
    ("importance_sampling", None),
    ("ppo", {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}),
    ("cispo", {"clip_low_threshold": 0.5, "clip_high_threshold": 2.0}),
    ("dro", {"beta": 0.0625}),
]

service = tinker.ServiceClient(base_url=BASE_URL, api_key="tml-peer", user_metadata={"suite": "peers"})
shared: dict[str, Any] = {}


def rest() -> Any:
    return shared.setdefault("rest", service.create_rest_client())


def create(seed: int = 7, **more: Any) -> tinker.TrainingClient:
    return settled(service.create_lora_training_client(base_model=MODEL, rank=4, seed=seed, **more))


def outputs(result: types.ForwardBackwardOutput) -> dict[str, Any]:
    return {
        "type": result.loss_fn_output_type,
        "metrics": plain(result.metrics),
        "logprobs": [plain(out["logprobs"].data) for out in result.loss_fn_outputs],
        "shapes": [out["logprobs"].shape for out in result.loss_fn_outputs],
    }


def step(client: tinker.TrainingClient, text: str) -> None:
    passed = client.forward_backward([weighted(text)], "cross_entropy")
    updated = client.optim_step(types.AdamParams(learning_rate=0.05))
    passed.result(LIMIT)
    updated.result(LIMIT)


def forward(client: tinker.TrainingClient) -> Any:
    return outputs(client.forward([weighted(text) for text in TEXTS], "cross_entropy").result(LIMIT))["logprobs"]


@case
def capabilities() -> Any:
    models = settled(service.get_server_capabilities()).supported_models
    return [model.model_name for model in models]


@case
def model() -> Any:
    client = shared["main"] = create(user_metadata={"purpose": "peer"})
    info = settled(client.get_info())
    return {"model_id": client.model_id, "name": info.model_data.model_name, "rank": info.lora_rank, "lora": info.is_lora}


@case
def losses() -> Any:
    """Every loss: without and with gradients, and the step that follows."""
    client = create()
    seen: dict[str, Any] = {}
    for name, config in LOSSES:
        data = [weighted(text) if name == "cross_entropy" else judged(text) for text in TEXTS]
        before = client.forward(data, name, config).result(LIMIT)
        passed = client.forward_backward(data, name, config)
        updated = client.optim_step(types.AdamParams(learning_rate=0.01, beta1=0.8, beta2=0.9, eps=1e-8, weight_decay=0.01, grad_clip_norm=1.0))
        seen[name] = {"forward": outputs(before), "backward": outputs(passed.result(LIMIT)), "update": plain(updated.result(LIMIT).metrics or {})}
    return {"model_id": client.model_id, "losses": seen, "after": forward(client)}


@case
def distillation() -> Any:
    """Several weighted targets for each position, dense and as sparse rows."""
    client = create()
    ids = tokens("abcdef")
    targets = np.array([[ids[i + 1], 0, 0, 0, 0, 0, 0, 0] for i in range(5)], dtype=np.int64)
    targets[2, 1] = ids[0]
    weights = np.zeros((5, 8), dtype=np.float32)
    weights[:, 0] = 0.75
    weights[2, 1] = 0.25
    dense = types.Datum(
        model_input=types.ModelInput.from_ints(ids[:-1]),
        loss_fn_inputs={"target_tokens": types.TensorData.from_numpy(targets), "weights": types.TensorData.from_numpy(weights)},
    )

    def rows(values: list[Any], dtype: str) -> types.TensorData:
        return types.TensorData(
            data=values, dtype=dtype, shape=[5, 8], sparse_crow_indices=[0, 1, 2, 4, 5, 6], sparse_col_indices=[0, 0, 0, 1, 0, 0]
        )

    sparse = types.Datum(
        model_input=types.ModelInput.from_ints(ids[:-1]),
        loss_fn_inputs={
            "target_tokens": rows([ids[1], ids[2], ids[3], ids[0], ids[4], ids[5]], "int64"),
            "weights": rows([0.75, 0.75, 0.75, 0.25, 0.75, 0.75], "float32"),
        },
    )
    return {
        kind: outputs(client.forward_backward([one], "cross_entropy").result(LIMIT))
        for kind, one in (("dense", dense), ("sparse", sparse))
    }


@case
def chunks() -> Any:
    """More data than fits into a request, combined into one result."""
    client = create()
    texts = [f"line {i:04d}" for i in range(1100)]
    result = client.forward_backward([weighted(text) for text in texts], "cross_entropy").result(LIMIT)
    return {"count": len(result.loss_fn_outputs), "metrics": plain(result.metrics), "first": plain(result.loss_fn_outputs[0]["logprobs"].data), "last": plain(result.loss_fn_outputs[-1]["logprobs"].data)}


@case
def state() -> Any:
    """Saved, loaded with the optimizer and without it, and each carried on by one step."""
    client = shared.get("main") or create()
    for text in TEXTS:
        step(client, text)
    path = shared["path"] = client.save_state("two-steps", ttl_seconds=7200).result(LIMIT).path
    plain_path = client.save_state("kept").result(LIMIT).path
    seen = {"path": path, "kept": plain_path, "saved": forward(client)}
    full = settled(service.create_training_client_from_state_with_optimizer(path))
    weights = settled(service.create_training_client_from_state(path))
    seen["full"], seen["weights"] = forward(full), forward(weights)
    for one in (client, full, weights):
        step(one, "over the lazy dog")
    seen["saved_next"], seen["full_next"], seen["weights_next"] = (forward(one) for one in (client, full, weights))
    fresh = create()
    fresh.load_state_with_optimizer(path).result(LIMIT)
    seen["loaded"] = forward(fresh)
    fresh = create()
    fresh.load_state(path).result(LIMIT)
    seen["loaded_weights"] = forward(fresh)
    return seen


@case
def overwrite() -> Any:
    client = create()
    first = client.save_state("again").result(LIMIT).path
    step(client, TEXTS[0])
    second = client.save_state("again", overwrite=True).result(LIMIT).path
    return {"same": first == second, "loads": forward(settled(service.create_training_client_from_state(second))) == forward(client)}


def sequences(response: Any) -> Any:
    return [{"stop": one.stop_reason, "tokens": one.tokens, "logprobs": plain(one.logprobs)} for one in response.sequences]


def sample(client: Any, prompt: str, count: int = 1, **params: Any) -> Any:
    request = dict(prompt=types.ModelInput.from_ints(tokens(prompt)), num_samples=count, sampling_params=types.SamplingParams(**params))
    return client.sample(**request).result(LIMIT)


@case
def sampling() -> Any:
    client = shared.get("main") or create()
    path = shared["sampler"] = client.save_weights_for_sampler("sampler").result(LIMIT).path
    sampler = settled(service.create_sampling_client(model_path=path))
    seen: dict[str, Any] = {"path": path, "base_model": sampler.get_base_model()}
    seen["greedy"] = sequences(sample(sampler, "the quick", max_tokens=8, temperature=0.0, seed=1))
    seen["again"] = sequences(sample(sampler, "the quick", max_tokens=8, temperature=0.0, seed=2))
    seen["seeded"] = [sequences(sample(sampler, "the quick", count=3, max_tokens=8, temperature=1.0, seed=11)) for _ in range(2)]
    seen["top_k"] = sequences(sample(sampler, "the quick", max_tokens=8, temperature=1.0, top_k=1, seed=5))
    seen["top_p"] = sequences(sample(sampler, "the quick", max_tokens=8, temperature=1.0, top_p=1e-6, seed=5))
    first = seen["greedy"][0]["tokens"][0]
    seen["stop_token"] = sequences(sample(sampler, "the quick", max_tokens=8, temperature=0.0, stop=[first]))
    if first < 128:
        seen["stop_text"] = sequences(sample(sampler, "the quick", max_tokens=8, temperature=0.0, stop=[chr(first)]))
    prompt = types.ModelInput.from_ints(tokens("the quick"))
    scored = sampler.sample(prompt=prompt, num_samples=1, sampling_params=types.SamplingParams(max_tokens=1, temperature=0.0), include_prompt_logprobs=True, topk_prompt_logprobs=3).result(LIMIT)
    seen["prompt_logprobs"] = plain(scored.prompt_logprobs)
    seen["topk"] = plain(scored.topk_prompt_logprobs)
    seen["computed"] = plain(settled(sampler.compute_logprobs(prompt)))
    seen["many"] = len({json.dumps(sequences(future.result(LIMIT))) for future in [
        sampler.sample(prompt=prompt, num_samples=1, sampling_params=types.SamplingParams(max_tokens=4, seed=3)) for _ in range(64)
    ]})
    return seen


@case
def samplers() -> Any:
    """A base model, weights that are saved nowhere, and the session's own view of both."""
    client = create()
    base = settled(service.create_sampling_client(base_model=MODEL))
    seen: dict[str, Any] = {"base": sequences(sample(base, "abc", max_tokens=4, temperature=0.0))}
    fresh = settled(client.save_weights_and_get_sampling_client())
    seen["fresh"] = sequences(sample(fresh, "abc", max_tokens=4, temperature=0.0))
    step(client, "abcabcabc")
    trained = settled(client.save_weights_and_get_sampling_client())
    seen["trained"] = sequences(sample(trained, "abc", max_tokens=4, temperature=0.0))
    seen["logprobs_agree"] = plain(settled(trained.compute_logprobs(types.ModelInput.from_ints(tokens("abc")))))
    got = settled(rest().get_sampler(trained._sampling_session_id)) if hasattr(trained, "_sampling_session_id") else None
    seen["sampler"] = got and {"base_model": got.base_model, "path": got.model_path}
    return seen


def walked(read: Any, items: str, name: str, limit: int) -> dict[str, Any]:
    """A list as a whole and page by page until one is short, each page with the cursor that came with it."""

    def named(page: Any) -> list[str]:
        return [one if isinstance(one, str) else getattr(one, name) for one in getattr(page, items)]

    whole = read(100, 0)
    pages: list[dict[str, Any]] = []
    while not pages or len(pages[-1]["names"]) == limit:
        page = read(limit, len(pages) * limit)
        pages.append({"names": named(page), "cursor": plain(getattr(page, "cursor", None))})
        if len(pages) > 60:
            raise RuntimeError("the list does not end")
    past = read(limit, 10_000)
    return {"whole": named(whole), "pages": pages, "past": {"names": named(past), "cursor": plain(getattr(past, "cursor", None))}}


@case
def runs() -> Any:
    client = shared.get("main") or create()
    one = settled(rest().get_training_run(client.model_id))
    by_path = settled(rest().get_training_run_by_tinker_path(shared["path"]))
    return {
        "run": plain(one),
        "by_path": by_path.training_run_id,
        "walked": walked(
            lambda limit, offset: settled(rest().list_training_runs(limit=limit, offset=offset)),
            "training_runs", "training_run_id", 2,
        ),
    }


@case
def checkpoints() -> Any:
    client = shared.get("main") or create()
    own = settled(rest().list_checkpoints(client.model_id))
    info = settled(rest().get_weights_info_by_tinker_path(shared["path"]))
    user = walked(
        lambda limit, offset: settled(rest().list_user_checkpoints(limit=limit, offset=offset)),
        "checkpoints", "tinker_path", 2,
    )
    return {"own": plain(own.checkpoints), "user": user, "info": plain(info)}


@case
def care() -> Any:
    """Published and withdrawn, given a time to live and relieved of it, deleted."""
    client = create()
    path = client.save_state("cared-for").result(LIMIT).path
    other = client.save_state("spare").result(LIMIT).path

    def look() -> Any:
        found = [one for one in settled(rest().list_checkpoints(client.model_id)).checkpoints if one.tinker_path == path]
        return {"public": found[0].public, "expires": found[0].expires_at is not None} if found else None

    seen = [look()]
    settled(rest().publish_checkpoint_from_tinker_path(path))
    seen.append(look())
    settled(rest().unpublish_checkpoint_from_tinker_path(path))
    seen.append(look())
    settled(rest().set_checkpoint_ttl_from_tinker_path(path, 7200))
    seen.append(look())
    settled(rest().set_checkpoint_ttl_from_tinker_path(path, None))
    seen.append(look())
    settled(rest().delete_checkpoint_from_tinker_path(path))
    seen.append(look())
    settled(rest().delete_checkpoint(client.model_id, "weights/spare"))
    return {"seen": seen, "left": len(settled(rest().list_checkpoints(client.model_id)).checkpoints), "other": other}


def unpacked(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=LIMIT) as response:
        bytes_ = response.read()
    with tarfile.open(fileobj=io.BytesIO(bytes_), mode="r:*") as tar:
        files = {member.name: tar.extractfile(member) for member in tar.getmembers() if member.isfile()}
        contents = {name: file.read() for name, file in files.items() if file is not None}
    weights = contents["adapter_model.safetensors"]
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    return {
        "gzip": bytes_[:2] == b"\x1f\x8b",
        "names": sorted(contents),
        "config": json.loads(contents["adapter_config.json"]),
        "tensors": {name: [entry["dtype"], entry["shape"]] for name, entry in sorted(tensors.items())},
        "whole": 8 + int.from_bytes(weights[:8], "little") + max(entry["data_offsets"][1] for entry in tensors.values()) == len(weights),
    }


@case
def archive() -> Any:
    """The newest versions download by another way, `external_weights`."""
    if not hasattr(rest(), "get_checkpoint_archive_url_from_tinker_path"):
        return {"absent": True}
    answer = settled(rest().get_checkpoint_archive_url_from_tinker_path(shared["sampler"]))
    return {"expires": answer.expires.timestamp() - time.time(), **unpacked(answer.url)}


@case
def sessions() -> Any:
    client = create()
    session_id = client.model_id.split(":")[0]
    session = settled(rest().get_session(session_id))
    # A list of one page says nothing about pages.
    other = tinker.ServiceClient(base_url=BASE_URL, api_key="tml-peer")
    settled(other.create_lora_training_client(base_model=MODEL, rank=4))
    listed = walked(
        lambda limit, offset: settled(rest().list_sessions(limit=limit, offset=offset)), "sessions", "session_id", 1
    )
    settled(rest().assign_session_project(session_id, "proj-peer"))
    in_project = settled(rest().list_training_runs(limit=50, project_id="proj-peer"))
    return {
        "session_id": session_id,
        "runs": session.training_run_ids,
        "samplers": len(session.sampler_ids),
        "listed": listed,
        "model_id": client.model_id,
        "project": [run.training_run_id for run in in_project.training_runs],
        "trace": settled(rest().export_session_trace(session_id)),
    }


@case
def accounts() -> Any:
    import datetime

    hour = datetime.datetime.now(datetime.UTC).replace(minute=0, second=0, microsecond=0)
    usage = settled(rest().get_billing_usage(hour - datetime.timedelta(hours=2), hour))
    audit = settled(rest().get_audit_log("checkpoints"))
    return {"usage": plain(usage), "audit": plain(audit.entries)[:3]}


@case
def whoami() -> Any:
    return plain(settled(rest().whoami()))


def failing(run: Callable[[], Any]) -> Any:
    try:
        run()
    except Exception as error:  # noqa: BLE001
        return {"type": type(error).__name__, "status": getattr(error, "status_code", None), "message": str(error)[:300]}
    return None


@case
def refusals() -> Any:
    client = create()
    other = tinker.ServiceClient(base_url=BASE_URL, api_key="tml-unknown")
    return {
        "model": failing(lambda: settled(service.create_lora_training_client(base_model="no/such-model", rank=4))),
        "run": failing(lambda: settled(rest().get_training_run("no-such-run"))),
        "path": failing(lambda: settled(service.create_training_client_from_state(f"tinker://{client.model_id}/weights/none"))),
        "loss": failing(lambda: client.forward_backward([weighted("abc")], "no_such_loss").result(LIMIT)),
        "token": failing(lambda: client.forward_backward([types.Datum(model_input=types.ModelInput.from_ints([9_999]), loss_fn_inputs={"target_tokens": [1], "weights": [1.0]})], "cross_entropy").result(LIMIT)),
        "key": failing(lambda: settled(other.get_server_capabilities())),
    }


@case
def custom_loss() -> Any:
    """minus the sum of squares of the log-probabilities: forward, then weights from the gradient."""
    client = create()
    data = [datum(text) for text in TEXTS]

    def loss(_: list[types.Datum], logprobs: list[Any]) -> Any:
        total = -(logprobs[0] * logprobs[0]).sum() - (logprobs[1] * logprobs[1]).sum()
        return total, {"squares": float(total.detach().item())}

    result = client.forward_backward_custom(data, loss).result(LIMIT)
    client.optim_step(types.AdamParams(learning_rate=0.01)).result(LIMIT)
    return {"metrics": plain(result.metrics), "after": forward(client)}


@case
def later() -> Any:
    """What came after 0.25: labels, the likeliest of what was sampled, scores of named tokens, copies, files of an adapter."""
    if VERSION < (0, 38):
        return {"absent": True}
    client = create()
    path = client.save_state("labelled", user_metadata={"stage": "peer"}).result(LIMIT).path
    own = settled(rest().list_checkpoints(client.model_id)).checkpoints
    sampler = settled(client.save_weights_and_get_sampling_client())
    prompt = types.ModelInput.from_ints(tokens("the quick"))
    named = np.array([[tokens("the quick")[i + 1], 120] for i in range(8)], dtype=np.int64)
    drawn = sampler.sample(
        prompt=prompt,
        num_samples=1,
        sampling_params=types.SamplingParams(max_tokens=3, temperature=0.0),
        include_prompt_logprobs=True,
        topk_sample_logprobs=2,
        target_prompt_logprobs=types.TensorData.from_numpy(named),
        prompt_alt_tokens_k=2,
        prompt_logprobs_last_n=4,
    ).result(LIMIT)
    [sequence] = drawn.sequences
    exported = client.save_weights_external("files").result(LIMIT).path
    files = settled(rest().get_external_weights_urls(exported))
    contents = {}
    for name, url in files.urls.items():
        with urllib.request.urlopen(url, timeout=LIMIT) as response:
            contents[name] = len(response.read())
    copied = settled(rest().copy_weights(path, "proj-peer"))
    usage = settled(rest().get_current_checkpoint_storage_usage())
    return {
        "path": path,
        "labels": [one.user_metadata for one in own if one.tinker_path == path],
        "sequence_id": sequence.sequence_id,
        "tokens": sequence.tokens,
        "logprobs": plain(sequence.logprobs),
        "topk": plain(sequence.topk_logprobs),
        "named": plain(drawn.target_prompt_logprobs.data),
        "computed": plain(settled(sampler.compute_logprobs(prompt))),
        "tail": plain(drawn.prompt_logprobs),
        "others": [drawn.prompt_alt_tokens.tokens.shape, drawn.prompt_alt_tokens.logprobs.shape],
        "files": contents,
        "copied": copied,
        "usage": plain(usage),
    }


@case
def finish() -> Any:
    """Newer versions end their session themselves."""
    if not hasattr(service, "close"):
        return {"absent": True}
    return {"closed": plain(settled(service.close("success", detail="all cases done")))}


for name, run in CASES.items():
    if WANTED and name not in WANTED or not WANTED and name == "custom_loss":
        continue
    began = time.monotonic()
    try:
        line: dict[str, Any] = {"case": name, "saw": run()}
    except BaseException as error:  # noqa: BLE001
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = {"case": name, "error": f"{type(error).__name__}: {str(error)[:500]} ({Path(where.filename).name}:{where.lineno})"}
    print(json.dumps({**line, "seconds": round(time.monotonic() - began, 2)}), flush=True)
sys.exit(0)
