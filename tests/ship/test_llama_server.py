"""llama.cpp's own server on the run's GGUF file, asked as ours is."""

import pytest
from answers import AnswersOfTheRun

llama = pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def address(rote, tmp_path_factory):
    from sftlab.ship import write_gguf

    file = tmp_path_factory.mktemp("gguf") / "toy.gguf"
    write_gguf(rote, file, type="f32")
    params = llama.CommonParams()
    params.model.path = str(file)
    params.model_alias = {"toy"}
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_ctx, params.n_parallel = 4096, 8
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = 0
    params.warmup = False
    server = llama.Server(params)
    yield f"{server.listening_address}/v1"
    del server


class TestAnswers(AnswersOfTheRun):
    pass
