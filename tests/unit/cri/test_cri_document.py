from criollo.cri.document import as_document
from criollo.cri.pb import api_pb2 as pb


def test_enums_have_names_and_numbers_stay_numbers() -> None:
    document = as_document(pb.ContainerStatus(id="x", state=pb.CONTAINER_EXITED, created_at=1 << 60, exit_code=-1))
    assert (document["state"], document["created_at"], document["exit_code"]) == ("CONTAINER_EXITED", 1 << 60, -1)


def test_plain_fields_are_there_and_unset_messages_are_not() -> None:
    document = as_document(pb.Image(id="x"))
    assert (document["username"], document["repo_tags"]) == ("", [])
    assert "uid" not in document
    assert as_document(pb.Image(uid=pb.Int64Value(value=0)))["uid"] == {"value": 0}


def test_maps_are_sorted_and_lists_hold_documents() -> None:
    document = as_document(pb.ContainerStatus(labels={"b": "2", "a": "1"}, mounts=[pb.Mount(container_path="/x")]))
    assert list(document["labels"].items()) == [("a", "1"), ("b", "2")]
    assert document["mounts"][0]["container_path"] == "/x"


def test_what_must_not_be_told_is_not() -> None:
    assert as_document(pb.AuthConfig(username="u", password="p"))["password"] == "***"
    assert as_document(pb.ExecSyncResponse(stdout=b"\xff"))["stdout"] == "\ufffd"
