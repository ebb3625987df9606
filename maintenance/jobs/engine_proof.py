"""The proof that a running clamd has loaded what is on disk."""

from pathlib import Path

from maintenance.clamav import system
from maintenance.clamav.canary import Canary
from maintenance.clamav.caretaker import Caretaker
from maintenance.errors import EngineError
from maintenance.jobs.definitions_report import Proof
from maintenance.jobs.generation import Definitions, uses_system_engine
from maintenance.shell.job import Context


def prove(context: Context, definitions: Definitions, caretaker: Caretaker) -> Proof:
    """See to it that clamd has loaded ``definitions``, and that it is shown.

    One that cannot be proven is a trouble where it is needed, or there at all.
    """
    socket = context.config.clamav.socket
    try:
        if _proven(context, definitions, caretaker):
            return "reloaded"
        raise EngineError(f"clamd at {socket} did not load the definitions on disk;"
                          " its log says why")
    except EngineError as error:
        if uses_system_engine(context.config) or Path(socket).exists():
            context.trouble(str(error))
            return "unproven"
        return "none"


def _proven(context: Context, definitions: Definitions, caretaker: Caretaker) -> bool:
    engine = system.connect(context.config.clamav.socket)
    if engine.proven(Canary.read(definitions.directory), definitions.content):
        return True
    canary = Canary.hatch(definitions.content)
    refused = caretaker.write_canary(canary.line)
    if refused is not None:
        context.log.warning("no canary could be written (%s)", refused)
        return False
    return engine.prove_reload(canary, definitions.content)
