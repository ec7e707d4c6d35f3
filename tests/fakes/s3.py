"""A real server of S3's API, of moto, in a thread of this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any

import botocore.session
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

BUCKET = "workroom"
VARIABLES = {
    "STORAGE": "s3",
    "S3_BUCKET": BUCKET,
    "S3_REGION": "eu-central-1",
    "S3_ACCESS_KEY_ID": "a key",
    "S3_SECRET_ACCESS_KEY": "a secret of S3",
}


@contextmanager
def s3_server() -> Iterator[str]:
    """Gives its URL; it has an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        # What it holds is the process's: another test's server may have been before.
        connection = HTTPConnection(host, port)
        connection.request("POST", "/moto-api/reset")
        assert connection.getresponse().status == HTTPStatus.OK
        connection.close()
        client(url).create_bucket(
            Bucket=BUCKET,
            CreateBucketConfiguration={"LocationConstraint": VARIABLES["S3_REGION"]},
        )
        yield url
    finally:
        server.stop()


def client(url: str) -> Any:
    """Amazon's own client, to look at what is there."""
    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=url,
        region_name=VARIABLES["S3_REGION"],
        aws_access_key_id=VARIABLES["S3_ACCESS_KEY_ID"],
        aws_secret_access_key=VARIABLES["S3_SECRET_ACCESS_KEY"],
    )
