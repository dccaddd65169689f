"""The store in an S3 bucket: Amazon's, Ceph's RADOS gateway, or another that honours conditional writes.

What it asks of the server is checked by :meth:`S3Store.probe`: run it before trusting a server that is new. Writers
that are killed in mid-upload leave parts that nobody sees but the bill: give the bucket a lifecycle rule that aborts
incomplete multipart uploads.

Conditional is nothing but ``put_if_absent``, in a single request: Ceph's gateway ignores conditions on multipart uploads, and
understands ``If-Match`` only without the quotes that it puts around an ETag itself.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from itertools import islice
from typing import Any, BinaryIO

import boto3
import boto3.exceptions
import s3transfer.exceptions
import urllib3.exceptions
from boto3.s3.transfer import TransferConfig
from botocore import exceptions as botocore_errors
from botocore.config import Config
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError
from botocore.session import get_session

from distci.errors import DistCIError, Forbidden, Invalid, NoSuchObject, StoreUnavailable
from distci.store.keys import check_key, check_prefix, check_range, is_key
from distci.store.port import ObjectInfo
from distci.store.probe import probe
from distci.store.sources import WholeReads

PREFIX_LENGTH_MAX = 100
"""Keys of S3 have 1,024 bytes, ours up to 900 of them."""

CREDENTIALS_REMEDY = (
    "give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, as a profile (AWS_PROFILE) of "
    "~/.aws/credentials, or as access_key and secret_key in the store's URL"
)

_CHUNK_BYTES = 1024 * 1024
_PART_BYTES = 8 * 1024 * 1024
"""What is uploaded, and kept in memory, at a time. S3 takes 10,000 parts: objects of up to 78 GiB."""

_PAGE_LENGTH_MAX = 1000
_RESUMES_MAX = 3
"""How often in a row a download may break without having brought a single byte."""

_CONFLICTS_MAX = 5


class S3Store:
    """A :class:`~distci.store.port.Store` in a bucket, below ``prefix``. The bucket must exist.

    Without keys or region, boto3 looks for them where it always does (environment, profile, role of the machine).
    Nothing is asked of the server until the first call.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        region: str | None = None,
        connect_timeout_s: float = 5,
        read_timeout_s: float = 30,
        attempts: int = 4,
    ) -> None:
        """``attempts`` counts the first one; the pauses between them grow to seconds. Raises ``Invalid``."""
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        if len(check_prefix(self._prefix)) > PREFIX_LENGTH_MAX:
            raise Invalid(f"store: prefix {prefix!r} is longer than {PREFIX_LENGTH_MAX} characters")
        config = Config(
            # Newer defaults add checksums that Ceph and others refuse; whoever reads an object verifies its digest.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
            tcp_keepalive=True,
            connect_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            # Ceph's gateway answers 500 to some reads of what is being replaced; another attempt gets one version or the other.
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=32,
        )
        with mapped_errors(bucket):
            try:
                core = get_session()
                core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
                session = boto3.session.Session(access_key, secret_key, region_name=region, botocore_session=core)
                self._client: Any = session.client("s3", endpoint_url=endpoint_url, config=config)
            except ValueError as error:
                raise Invalid(f"store: {error}") from error
        # In the caller's thread and one part at a time: several uploads at once must not cost memory without limit.
        self._transfer = TransferConfig(
            multipart_threshold=_PART_BYTES,
            multipart_chunksize=_PART_BYTES,
            use_threads=False,
            preferred_transfer_client="classic",
        )

    def bare(self) -> tuple[Callable[[str, bytes], object], Callable[[str], bytes]]:
        """To write and to read an object as boto3 does by itself: what ours is measured against."""

        def read(key: str) -> bytes:
            body: bytes = self._client.get_object(**self._name(key))["Body"].read()
            return body

        return lambda key, data: self._client.put_object(**self._name(key), Body=data), read

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        name = self._name(key)
        with mapped_errors(self._bucket, key):
            if isinstance(data, bytes):
                self._client.put_object(**name, Body=data)
            else:
                self._client.upload_fileobj(WholeReads(data), **name, Config=self._transfer)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        name = self._name(key)
        for _ in range(_CONFLICTS_MAX):
            with mapped_errors(self._bucket, key):
                try:
                    self._client.put_object(**name, Body=data, IfNoneMatch="*")
                    return True
                except botocore_errors.ClientError as error:
                    if _status(error) not in (409, 412):
                        raise
                    _require_single_attempt(error, key)
                    if _status(error) == 412:
                        return False
        raise StoreUnavailable(f"store: other writes of {key!r} came in the way {_CONFLICTS_MAX} times")

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._download(key, start, length) as download:
            return b"".join(iter(lambda: download.read(_CHUNK_BYTES), b""))

    def open(self, key: str, start: int = 0) -> BinaryIO:
        return io.BufferedReader(self._download(key, start, None), _CHUNK_BYTES)

    def head(self, key: str) -> ObjectInfo | None:
        name = self._name(key)
        with mapped_errors(self._bucket, key):
            try:
                answer = self._client.head_object(**name)
            except botocore_errors.ClientError as error:
                if _status(error) != 404:
                    raise
                # The answer has no body to say whether it is the object that is missing, or the whole bucket.
                self._require_bucket()
                return None
            return _object_info(key, _said(answer, "ContentLength"), _said(answer, "LastModified"))

    def list(self, prefix: str, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        check_prefix(prefix)
        check_prefix(after)
        with mapped_errors(self._bucket):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket,
                Prefix=self._prefix + prefix,
                StartAfter=self._prefix + after if after else "",
                PaginationConfig={"PageSize": min(limit, _PAGE_LENGTH_MAX)},
            )
            infos = (self._info(entry) for page in pages for entry in _entries(page))
            # Consoles leave "folder/" objects behind, which are none of ours.
            return tuple(islice((info for info in infos if is_key(info.key)), limit))

    def delete(self, key: str) -> None:
        name = self._name(key)
        with mapped_errors(self._bucket, key):
            self._client.delete_object(**name)

    def probe(self) -> Sequence[str]:
        """What is wrong with the server or its settings, in sentences; empty when it can be relied on.

        Writes a small object under a name of its own, and removes it.
        """
        return probe(self, f"bucket {self._bucket!r} at {self._client.meta.endpoint_url}")

    def _name(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    def _info(self, entry: Any) -> ObjectInfo:
        return _object_info(entry["Key"].removeprefix(self._prefix), entry["Size"], entry["LastModified"])

    def _download(self, key: str, start: int, length: int | None) -> _Download:
        name = self._name(key)
        check_range(start, length)
        return _Download(lambda **range_: self._client.get_object(**name, **range_), self._bucket, key, start, length)

    def _require_bucket(self) -> None:
        with mapped_errors(self._bucket):
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except botocore_errors.ClientError as error:
                if _status(error) != 404:
                    raise
                raise _no_bucket(self._bucket) from error


class _Download(io.RawIOBase):
    """The bytes of one object from ``start`` on. A connection that breaks is made again where it broke."""

    def __init__(self, request: Callable[..., Any], bucket: str, key: str, start: int, length: int | None) -> None:
        self._body: Any = io.BytesIO()
        self._request = request
        self._bucket = bucket
        self._key = key
        self._position = start
        self._breaks = 0
        # At once, so that what is missing is missing before anyone reads.
        self._etag, left = self._ask(None if length is None else start + length)
        self._end = start + (left if length is None else min(left, length))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        wanted = memoryview(buffer)[: self._end - self._position]
        while wanted:
            try:
                with mapped_errors(self._bucket, self._key):
                    count: int = self._body.readinto(wanted)
            except StoreUnavailable:
                self._breaks += 1
                if self._breaks > _RESUMES_MAX:
                    raise
                self._resume()
            else:
                self._breaks = 0
                self._position += count
                return count
        return 0

    def close(self) -> None:
        self._body.close()
        super().close()

    def _resume(self) -> None:
        self._body.close()
        etag, _ = self._ask(self._end)
        if etag != self._etag:
            raise StoreUnavailable(f"store: object {self._key!r} was replaced while it was read")

    def _ask(self, end: int | None) -> tuple[str, int]:
        """Have the bytes from here to ``end`` sent: the version that they are of, and how many follow."""
        # A range of no bytes cannot be asked for.
        last = "" if end is None else max(end - 1, self._position)
        with mapped_errors(self._bucket, self._key):
            try:
                answer = self._request(Range=f"bytes={self._position}-{last}")
            except botocore_errors.ClientError as error:
                if _status(error) != 416:
                    raise
                return "ends before", 0
            self._body = answer["Body"]
            length: int = _said(answer, "ContentLength")
            if self._position and length:
                _said(answer, "ContentRange")
            return _said(answer, "ETag"), length


@cache
def _loader(path: str | None) -> Loader:
    """Reads what botocore knows of S3, which takes most of the time to make a client: once for all of a process."""
    return create_loader(path)


@contextmanager
def mapped_errors(bucket: str, key: str = "") -> Iterator[None]:
    """Turn what the libraries below raise into the errors of the store port, the cause chained."""
    try:
        yield
    except botocore_errors.ClientError as error:
        raise _from_answer(error, bucket, key) from error
    except LIBRARY_ERRORS as error:
        # Of an error that nobody thought of, nothing is known either.
        home = home_of(type(error)) or StoreUnavailable
        remedy = f"; {CREDENTIALS_REMEDY}" if home is Forbidden else ""
        raise home(f"store: bucket {bucket!r}: {error}{remedy}") from error


LIBRARY_ERRORS = (
    botocore_errors.BotoCoreError,
    ResponseParserError,
    boto3.exceptions.Boto3Error,
    s3transfer.exceptions.RetriesExceededError,
    s3transfer.exceptions.S3UploadFailedError,
    s3transfer.exceptions.CancelledError,
    urllib3.exceptions.HTTPError,
)

_HOMES: Mapping[type[DistCIError], Sequence[type[Exception]]] = {
    StoreUnavailable: (
        botocore_errors.HTTPClientError,
        botocore_errors.ConnectionError,
        botocore_errors.IncompleteReadError,
        botocore_errors.ChecksumError,
        botocore_errors.FlexibleChecksumError,
        botocore_errors.AwsChunkedWrapperError,
        botocore_errors.UnseekableStreamError,
        botocore_errors.PaginationError,
        botocore_errors.MetadataRetrievalError,
        ResponseParserError,
        boto3.exceptions.RetriesExceededError,
        boto3.exceptions.S3TransferFailedError,
        boto3.exceptions.S3UploadFailedError,
        s3transfer.exceptions.RetriesExceededError,
        s3transfer.exceptions.S3UploadFailedError,
        s3transfer.exceptions.CancelledError,
        urllib3.exceptions.HTTPError,
    ),
    Forbidden: (
        botocore_errors.NoCredentialsError,
        botocore_errors.PartialCredentialsError,
        botocore_errors.CredentialRetrievalError,
        botocore_errors.UnknownCredentialError,
        botocore_errors.NoAuthTokenError,
        botocore_errors.TokenRetrievalError,
        botocore_errors.RefreshWithMFAUnsupportedError,
        botocore_errors.SSOError,
        botocore_errors.LoginError,
    ),
    Invalid: (
        botocore_errors.ValidationError,
        botocore_errors.ParamValidationError,
        botocore_errors.BaseEndpointResolverError,
        botocore_errors.EndpointProviderError,
        botocore_errors.InvalidEndpointConfigurationError,
        botocore_errors.InvalidDNSNameError,
        botocore_errors.InvalidHostLabelError,
        botocore_errors.InvalidConfigError,
        botocore_errors.InvalidProxiesConfigError,
        botocore_errors.InvalidRetryConfigurationError,
        botocore_errors.InvalidDefaultsMode,
        botocore_errors.InvalidChecksumConfigError,
        botocore_errors.InvalidIMDSEndpointError,
        botocore_errors.InvalidIMDSEndpointModeError,
        botocore_errors.InvalidS3AddressingStyleError,
        botocore_errors.InvalidS3UsEast1RegionalEndpointConfigError,
        botocore_errors.InvalidSTSRegionalEndpointsConfigError,
        botocore_errors.UnsupportedS3ConfigurationError,
        botocore_errors.UnsupportedS3ArnError,
        botocore_errors.UnsupportedS3AccesspointConfigurationError,
        botocore_errors.UnsupportedSignatureVersionError,
        botocore_errors.UnknownSignatureVersionError,
        botocore_errors.ProfileNotFound,
        botocore_errors.ConfigParseError,
        botocore_errors.ConfigNotFound,
        botocore_errors.MissingDependencyException,
        botocore_errors.DataNotFoundError,
        botocore_errors.UnknownRegionError,
    ),
}


def home_of(library_error: type[Exception]) -> type[DistCIError] | None:
    """Where an error of the libraries belongs in the tree of :mod:`distci.errors`; None when nobody has said."""
    homes = (home for home, classes in _HOMES.items() if issubclass(library_error, tuple(classes)))
    return next(homes, None)


_REFUSED = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})
_BUSY = frozenset({"QuotaExceeded", "RequestTimeout", "IncompleteBody"})
_TRANSIENT_STATUS = frozenset({0, 404, 408, 409, 425, 429})


def _from_answer(error: Any, bucket: str, key: str) -> DistCIError:
    """What a refusal by the server means."""
    code, status = error.response["Error"].get("Code", ""), _status(error)
    said = f"store: bucket {bucket!r}: {error}"
    if code == "NoSuchKey":
        return NoSuchObject(f"the store has no object {key!r}")
    if code == "NoSuchBucket":
        return _no_bucket(bucket)
    # Any other 404 is not S3's word on the object: a proxy may have lost its server.
    if code in _BUSY or status in _TRANSIENT_STATUS or (status >= 500 and status != 501):
        return StoreUnavailable(said)
    return Forbidden(said) if code in _REFUSED or status in (401, 403) else Invalid(said)


def _object_info(key: str, size_bytes: int, modified: datetime) -> ObjectInfo:
    # Some servers list milliseconds; the date of a head has whole seconds everywhere.
    return ObjectInfo(key, size_bytes, modified.replace(microsecond=0).timestamp())


def _entries(page: Any) -> Sequence[Any]:
    # An empty listing says so; a log-in page that a proxy put in its place holds nothing either.
    _said(page, "IsTruncated")
    entries: Sequence[Any] = page.get("Contents", ())
    return entries


def _said(answer: Any, field: str) -> Any:
    """What every S3 server says in such an answer; what another one says cannot be relied on."""
    if field not in answer:
        raise ResponseParserError(f"this is not how S3 answers: {field} is missing")
    return answer[field]


def _require_single_attempt(refusal: Any, key: str) -> None:
    """Never take an object that is in the way for another's when an earlier attempt of ours may have written it."""
    if refusal.response["ResponseMetadata"].get("RetryAttempts"):
        raise StoreUnavailable(f"store: an answer was lost, and whose {key!r} now is, is unknown") from refusal


def _no_bucket(bucket: str) -> StoreUnavailable:
    return StoreUnavailable(f"store: there is no bucket {bucket!r}: create it, or correct the store's address")


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
