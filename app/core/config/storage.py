from typing import Literal

from pydantic import Field, SecretStr

from app.core.config.base import Group


class StorageSettings(Group):
    storage: Literal["local", "s3"] = Field(
        "local",
        alias="STORAGE",
        description="Where files are kept: local is DATA_DIR/files, s3 is S3_BUCKET.",
    )
    s3_bucket: str = Field(
        "", alias="S3_BUCKET", description="The bucket for files, where STORAGE is s3."
    )
    s3_region: str = Field(
        "us-east-1", alias="S3_REGION", description="The bucket's region."
    )
    s3_endpoint_url: str = Field(
        "",
        alias="S3_ENDPOINT_URL",
        description="A server that speaks S3's API, such as http://minio:9000; empty: "
        "Amazon's own.",
    )
    s3_access_key_id: str = Field(
        "",
        alias="S3_ACCESS_KEY_ID",
        description="Credentials for the bucket; without them AWS's own chain is "
        "asked (environment, shared file, role of the machine).",
    )
    s3_secret_access_key: SecretStr | None = Field(
        None,
        alias="S3_SECRET_ACCESS_KEY",
        description="The secret for S3_ACCESS_KEY_ID.",
    )
    max_file_bytes: int = Field(
        512 * 2**20,
        alias="MAX_FILE_BYTES",
        ge=1024,
        description="The largest file that anybody may upload, whatever their plan "
        "says; beyond it 413.",
    )
    parse_seconds: int = Field(
        60,
        alias="FILE_PARSE_SECONDS",
        ge=1,
        description="How long a file may take to be looked into; beyond it the file "
        "is rejected.",
    )
    parse_bytes: int = Field(
        1024 * 2**20,
        alias="FILE_PARSE_BYTES",
        ge=256 * 2**20,
        description="The memory that looking into a file may take, address space "
        "counted; beyond it the file is rejected.",
    )
    clamd_address: str = Field(
        "",
        alias="CLAMD_ADDRESS",
        description="A clamd that files are checked by for viruses, as host:port or "
        "the path of its socket; empty: none.",
    )

    @property
    def s3_endpoint(self) -> str:
        return (
            self.s3_endpoint_url.rstrip("/")
            or f"https://s3.{self.s3_region}.amazonaws.com"
        )
