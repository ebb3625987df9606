"""One image made smaller, inside a worker."""

from maintenance.images import jpeg, verify
from maintenance.images.outcomes import LeaveAlone
from maintenance.images.plan import Plan

LEAST = 64  # bytes a replacement has to save


def shrink(data: bytes, plan: Plan) -> bytes:
    """Return a smaller file that shows the same; raises LeaveAlone or Broken."""
    if data.startswith(jpeg.START + b"\xff"):
        return _jpeg(data, plan)
    raise LeaveAlone("not a JPEG or PNG")


def _jpeg(data: bytes, plan: Plan) -> bytes:
    if plan.jpeg == "off":
        raise LeaveAlone("off in the configuration")
    original = jpeg.parse(data)
    jpeg.admit(original)
    if original.pixels > plan.allowance.pixels:
        raise LeaveAlone("too many pixels")
    result = bytes(jpeg.stripped(original, plan.keep))
    before = verify.decoded(bytes(jpeg.stripped(original, ())), "JPEG")
    after = verify.decoded(bytes(jpeg.stripped(jpeg.parse(result), ())), "JPEG")
    if not verify.same_pixels(before, after):
        raise LeaveAlone("no result with the same pixels")
    if len(data) - len(result) < max(LEAST, plan.min_gain * len(data)):
        raise LeaveAlone("nothing to gain")
    return result
