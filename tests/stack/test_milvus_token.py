"""The server of the embedded Milvus Lite: who may call it, and by which names."""

import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import grpc
import pytest
from pymilvus import DataType, MilvusClient, MilvusException
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc, schema_pb2

from nightshift.stack import Stack
from nightshift.stack.embedded.milvus_lite_server import bad_names

_METHODS = [
    *(
        f"/milvus.proto.milvus.MilvusService/{method.name}"
        for method in milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods
    ),
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/no.such.Service/Method",
]
_ODD_NAMES = ("..", "../x", "a/b", "/etc", "a\0b", "a b", "1st", "a.b", "ünïcode", "a" * 256, "a\n")


@pytest.fixture
def client(stack: Stack):
    urls = stack.urls()
    with_token = MilvusClient(urls.milvus_uri, token=urls.milvus_token, dedicated=True)
    yield with_token
    with_token.drop_collection("guarded")
    with_token.close()


@pytest.fixture
def stranger(stack: Stack):
    """A connection that brings no token by itself."""
    with grpc.insecure_channel(stack.urls().milvus_uri.removeprefix("http://")) as channel:
        yield channel


def test_without_the_token_no_call_learns_anything(stack: Stack, stranger: grpc.Channel):
    token = stack.urls().milvus_token
    headers = [
        (),
        (("authorization", ""),),
        (("authorization", token),),  # not packed as clients pack it
        (("authorization", b64encode(b"root:Milvus").decode()),),
        (("authorization", b64encode(token[:-1].encode()).decode()),),
        (("token", token),),
        (("authorization", "x"), ("authorization", b64encode(token.encode()).decode())),
    ]
    answers = set()
    for metadata in headers:
        for method in _METHODS:
            call = stranger.unary_unary(method)
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", metadata=metadata, timeout=30)
            answers.add((caught.value.code(), caught.value.details()))

    assert answers == {(grpc.StatusCode.UNAUTHENTICATED, "auth check failure: the token is wrong")}


def test_a_stranger_can_delete_no_directory(
    stack: Stack, stranger: grpc.Channel, client: MilvusClient, tmp_path: Path
):
    kept = tmp_path / "kept"
    kept.mkdir()
    outside = "/".join([".."] * 20) + str(kept)
    client.create_collection("guarded", dimension=4)
    stub = milvus_pb2_grpc.MilvusServiceStub(stranger)
    token = b64encode(stack.urls().milvus_token.encode()).decode()
    refusals = {
        (): grpc.StatusCode.UNAUTHENTICATED,
        (("authorization", token),): grpc.StatusCode.INVALID_ARGUMENT,
    }

    for metadata, code in refusals.items():
        for call, request in (
            (stub.CreatePartition, milvus_pb2.CreatePartitionRequest),
            (stub.DropPartition, milvus_pb2.DropPartitionRequest),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(request(collection_name="guarded", partition_name=outside), metadata=metadata)
            assert caught.value.code() == code

    assert kept.is_dir()


def test_with_the_token_names_must_still_be_identifiers(client: MilvusClient, tmp_path: Path):
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("../../v", DataType.FLOAT_VECTOR, dim=4)
    client.create_collection("guarded", dimension=4)
    attempts = (
        lambda: client.create_collection("fields", schema=schema),
        lambda: client.create_collection("a/b", dimension=4),
        lambda: client.create_partition("guarded", str(tmp_path)),
        lambda: client.create_alias("guarded", "../alias"),
        lambda: client.create_database("../other"),
        lambda: client.rename_collection("guarded", "../other"),
        lambda: client.drop_index("guarded", "../index"),
        lambda: client.drop_collection("../guarded"),
        lambda: client.query("guarded", "id > 0", partition_names=["../x"]),
        lambda: client.insert("guarded", [{"id": 1, "vector": [0.0] * 4}], partition_name=".."),
    )
    for attempt in attempts:
        with pytest.raises((grpc.RpcError, MilvusException), match="letters, digits and underscor"):
            attempt()

    client.create_partition("guarded", "Part_1")
    assert set(client.list_partitions("guarded")) == {"_default", "Part_1"}


@pytest.mark.parametrize("name", _ODD_NAMES)
def test_odd_names_are_seen_at_any_depth_of_a_request(name: str):
    packed = schema_pb2.CollectionSchema(
        name="good", fields=[schema_pb2.FieldSchema(name=name)]
    ).SerializeToString()
    requests = {
        "partition_names": milvus_pb2.QueryRequest(partition_names=["good", name]),
        "newName": milvus_pb2.RenameCollectionRequest(oldName="good", newName=name),
        "field_name": milvus_pb2.InsertRequest(fields_data=[schema_pb2.FieldData(field_name=name)]),
        "name": milvus_pb2.CreateCollectionRequest(collection_name="good", schema=packed),
        "alias": milvus_pb2.AlterAliasRequest(collection_name="good", alias=name),
    }
    for field, request in requests.items():
        assert bad_names(request) == [field]


@pytest.mark.night
def test_an_idle_connection_is_not_ended_for_its_pings(stack: Stack):
    # pymilvus pings every 10 s; a server that minds says so in the client's error output, after
    # some pings without a call between them.
    program = (
        "import os, time; from pymilvus import MilvusClient\n"
        "client = MilvusClient(os.environ['URI'], token=os.environ['TOKEN'], dedicated=True)\n"
        "time.sleep(150); client.list_collections()"
    )
    urls = stack.urls()
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "URI": urls.milvus_uri, "TOKEN": urls.milvus_token},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "too_many_pings" not in (stack.data_dir / "logs" / "milvus.log").read_text()
