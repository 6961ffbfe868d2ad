"""Several models on several workers, under different policies: the union of models, and each request at a worker that serves its model."""

import json

import openai
import pytest

import backends
import processes
from conftest import client

# What each simulated worker serves.
SERVED = [["alpha"], ["alpha", "beta"], ["beta", "gamma"]]


class Fleet(backends.Backend):
    """Three simulated workers with other models each."""

    name, model, embed_model = "fleet", "alpha", "gamma"

    def start_workers(self) -> None:
        for index, models in enumerate(SERVED):
            self.chat_urls.append(self.start_simulated(f"fleet-{index}", ["--models", ",".join(models)]))
        self.embed_urls = self.chat_urls

    def asked(self) -> list[list[str]]:
        """The models that each worker was asked for since it started."""
        seen = [json.loads(processes.get(f"{it}/sim/requests")[1]) for it in self.chat_urls]
        return [[json.loads(it["body"])["model"] for it in requests if it["path"] == "/v1/chat/completions"] for requests in seen]


@pytest.fixture(params=["cache_aware", "round_robin", "consistent_hashing"])
def fleet(request, monkeypatch):
    if "sim" not in request.config.getoption("--backends"):
        pytest.skip("not among the backends")
    monkeypatch.setenv("SDK_POLICY", request.param)
    started = Fleet().start()
    yield started
    started.stop()


def test_fleet(fleet):
    with client(fleet.smg) as smg:
        assert {it.id for it in smg.models.list()} == {"alpha", "beta", "gamma"}
        for index in range(12):
            for model in ("alpha", "beta", "gamma"):
                said = [{"role": "user", "content": f"say: {model} {index}"}]
                whole = smg.chat.completions.create(model=model, messages=said)
                chunks = smg.chat.completions.create(model=model, messages=said, stream=True)
                text = "".join(it.choices[0].delta.content or "" for it in chunks)
                assert whole.model == model and text == whole.choices[0].message.content == f"{model} {index}"
        with pytest.raises(openai.NotFoundError):
            smg.chat.completions.create(model="delta", messages=[{"role": "user", "content": "hi"}])
    for models, asked in zip(SERVED, fleet.asked()):
        assert asked and set(asked) <= set(models)
