"""One image made smaller, inside a worker."""

from collections.abc import Callable, Iterable

from maintenance.images import chunks, jpeg, kinds, png, segments, tools, webp
from maintenance.images.chunks import Png
from maintenance.images.outcomes import Broken, LeaveAlone
from maintenance.images.pictures import shown_by_jpeg, shown_by_png, shown_by_webp
from maintenance.images.plan import Plan
from maintenance.images.segments import Jpeg
from maintenance.images.verify import Different, same_jpeg, same_png, same_webp

LEAST = 64  # bytes that a replacement has to save, unless metadata have to go
TOO_SMALL = 2000  # bytes below which coding anew is not worth its time
MANY = "too many pixels"


def shrink(data: bytes, plan: Plan) -> bytes:
    """Return a smaller file that shows the same; raises LeaveAlone or Broken."""
    if not data:
        raise Broken("it is empty")
    kind = kinds.kind_of(data[:kinds.HEAD])
    if kind == kinds.JPEG:
        return _jpeg(data, plan)
    if kind == kinds.PNG:
        return _png(data, plan)
    if kind == kinds.WEBP:
        return _webp(data, plan)
    raise LeaveAlone("a GIF" if kind == kinds.GIF else kinds.UNKNOWN)


def _jpeg(data: bytes, plan: Plan) -> bytes:
    if plan.jpeg == "off":
        raise LeaveAlone("off in the configuration")
    original = segments.parse(data)
    jpeg.admit(original)
    if original.pixels > plan.allowance.pixels:
        raise Broken(MANY)
    shown = shown_by_jpeg(original)
    bare, kept = jpeg.stripped(original, ()), jpeg.stripped(original, plan.keep)
    results = [bytes(kept)]
    if len(data) >= TOO_SMALL:
        names = list(dict.fromkeys((plan.jpeg, plan.jpeg_second)))
        if original.frame.marker == segments.PROGRESSIVE and "jpegtran" in names:
            names.remove("jpegtran")  # it has had that gain; mozjpeg finds another 1 or 2 %
        coded = _coded_jpeg(bytes(bare), names)
        if coded is not None:
            results.append(bytes(jpeg.with_coding_of(kept, coded)))
    return _best(data, results, original.extras != kept.extras, plan,
                 lambda result: same_jpeg(original, shown, result, plan.keep))


def _coded_jpeg(bare: bytes, names: Iterable[str]) -> Jpeg | None:
    """Return what the first of these tools makes of it that can."""
    for name in names:
        coded = tools.JPEG[name](bare) if name in tools.JPEG else b""
        try:
            if coded.startswith(segments.START):
                return segments.parse(coded)
        except (Broken, LeaveAlone):
            continue
    return None


def _png(data: bytes, plan: Plan) -> bytes:
    if plan.png == "off":
        raise LeaveAlone("off in the configuration")
    original = chunks.parse(data)
    png.admit(original)
    header = original.header
    wide = header.depth == 16
    if header.width * header.height > plan.allowance.pixels or header.raw > plan.allowance.raw:
        raise Broken(MANY)
    if wide and header.raw > plan.allowance.deep:
        raise LeaveAlone("too many pixels for 16 bits a colour")
    kept = png.stripped(original, plan.keep)
    if "all" in plan.keep and original.strange:
        raise LeaveAlone("a PNG of a rare kind")
    shown = shown_by_png(original, wide=wide)
    results = [bytes(kept)]
    if len(data) >= TOO_SMALL:
        coded = _coded_png(kept, plan)
        if coded is not None:
            results.append(bytes(png.assembled(coded, kept.metadata)))
    must = kept.told("all") != original.told("all")
    return _best(data, results, must, plan,
                 lambda result: same_png(original, shown, result, plan.keep))


def _coded_png(kept: Png, plan: Plan) -> Png | None:
    """Return what the first of the plan's tools makes of it that can."""
    bare = bytes(png.assembled(kept, ()))
    # A profile for grey fits no colours, nor one for colours grey.
    freedom = tools.Freedom(not kept.all(*chunks.OF_SAMPLES), not kept.all(b"iCCP"))
    for name in dict.fromkeys((plan.png, plan.png_second)):
        coded = tools.PNG[name](bare, freedom, plan.allowance.raw) if name in tools.PNG else b""
        try:
            if coded.startswith(chunks.MAGIC):
                return chunks.parse(coded)
        except (Broken, LeaveAlone):
            continue
    return None


def _webp(data: bytes, plan: Plan) -> bytes:
    """Strip it; its pictures stay as they are coded."""
    original = webp.parse(data)
    kept = webp.stripped(original, plan.keep)
    result = bytes(kept)
    if len(result) >= len(data):
        raise LeaveAlone(kinds.NO_GAIN)  # without decoding: nothing would come of it
    if original.pixels > plan.allowance.pixels:
        raise Broken(MANY)
    shown = shown_by_webp(original)
    return _best(data, [result], kept != original, plan,
                 lambda result: same_webp(original, shown, result, plan.keep))


def _best(data: bytes, results: list[bytes], must: bool, plan: Plan,
          check: Callable[[bytes], None]) -> bytes:
    """Return the smallest result that passes, when it is worth it or metadata must go."""
    least = 1 if must else max(LEAST, plan.min_gain * len(data))
    refused = kinds.NO_GAIN
    for result in sorted(results, key=len):
        if len(data) - len(result) < least:
            break
        try:
            check(result)
        except Different:
            refused = "no result that shows the same"
        else:
            return result
    raise LeaveAlone(refused)
