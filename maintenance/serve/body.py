"""An upload out of a request: the raw body, or the one file of a form."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from typing import IO

from aiohttp import BodyPartReader, web
from aiohttp.client_exceptions import ClientError
from aiohttp.http_exceptions import HttpProcessingError

from maintenance.upload.source import TooLarge

IN_MEMORY = 256 * 2**10  # bytes of an upload beyond which it goes to an unnamed file
CHUNK = 64 * 2**10
FORM = 64 * 2**10  # bytes of a form that are not its file


class Broken(Exception):
    """A request that is none; the text says why in one sentence."""


async def receive(request: web.Request, limit: int, patience: float) -> IO[bytes]:
    """Return the upload, at most ``limit`` bytes, that came within ``patience`` seconds.

    The whole of it comes before clamd is asked: a slow client costs no thread of
    clamd's. Raises TooLarge and Broken.
    """
    form = request.content_type == "multipart/form-data"
    if (request.content_length or 0) > limit + (FORM if form else 0):
        raise TooLarge
    file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - the caller's
    try:
        async with asyncio.timeout(patience):
            if form:
                await _file_of_form(request, file, limit)
            else:
                await _copy(request.content.iter_chunked(CHUNK), file, limit)
    except TimeoutError:
        file.close()
        raise Broken(f"the body did not come within {patience:g} s") from None
    except (ClientError, HttpProcessingError, ConnectionError, ValueError, AssertionError,
            EOFError, RuntimeError) as error:
        file.close()
        raise Broken(f"the body is broken: {str(error).strip().partition(chr(10))[0]}") from None
    except BaseException:
        file.close()
        raise
    return file


async def _file_of_form(request: web.Request, file: IO[bytes], limit: int) -> None:
    files, rest = 0, 0
    parts = await request.multipart()
    while (part := await parts.next()) is not None:
        if not isinstance(part, BodyPartReader):
            raise Broken("the form has a form within it")
        if part.filename is None:
            async for chunk in _pieces(part):
                rest += len(chunk)
                if rest > FORM:
                    raise Broken(f"the form has more than {FORM} bytes beside its file")
            continue
        files += 1
        if files > 1:
            raise Broken("the form has more than one file")
        await _copy(_pieces(part), file, limit)
    if not files:
        raise Broken("the form has no file")


async def _pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(CHUNK):
        yield chunk
    if not part.at_eof():
        raise Broken("the body ends in the middle of a part")


async def _copy(chunks: AsyncIterator[bytes], file: IO[bytes], limit: int) -> None:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise TooLarge
        file.write(chunk)
