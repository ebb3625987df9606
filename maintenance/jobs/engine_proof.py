"""The proof that a running clamd has loaded what is on disk."""

from collections.abc import Iterator
from pathlib import Path

from maintenance.clamav import bodies, system
from maintenance.clamav.blame import unloadable, unreadable
from maintenance.clamav.bodies import Body
from maintenance.clamav.canary import Canary, Evidence
from maintenance.clamav.caretaker import Caretaker
from maintenance.clamav.probe import Probe
from maintenance.clamav.system import SystemEngine
from maintenance.errors import EngineError, ToolError
from maintenance.jobs.definitions_report import DefinitionsReport, Proof
from maintenance.jobs.generation import Definitions, uses_system_engine
from maintenance.settings import Config
from maintenance.shell.job import Context


def evidence(config: Config, definitions: Definitions) -> Evidence | None:
    """Return what an engine must find that has loaded ``definitions``; None: there is nothing."""
    found = (Canary.read(definitions.directory), Probe.read(config.state))
    return next((one for one in found if one and one.stands_for(definitions.content)), None)


def prove(context: Context, definitions: Definitions, caretaker: Caretaker,
          report: DefinitionsReport) -> Proof:
    """See to it that clamd has loaded ``definitions``, and that it is shown.

    One that cannot be proven is a trouble where it is needed, or there at all.
    """
    socket = context.config.clamav.socket
    needed = uses_system_engine(context.config)
    try:
        engine = system.connect(socket)
    except EngineError as error:
        if not needed and not Path(socket).exists():
            return "none"
        broken = unloadable(definitions.directory, definitions.content)
        context.trouble(f"{error}{'' if broken is None else f': {broken}'}")
        return "unproven"
    stranger = engine.stranger_to(definitions.directory)
    if stranger is not None and not needed:
        return "none"  # nobody asks it but uploads, and its definitions are not our work
    try:
        if stranger is not None:
            raise EngineError(stranger)
        return _prove(context, engine, definitions, caretaker, report)
    except (EngineError, ToolError) as error:
        context.trouble(str(error))
        return "unproven"


def _prove(context: Context, engine: SystemEngine, definitions: Definitions,
           caretaker: Caretaker, report: DefinitionsReport) -> Proof:
    content = definitions.content
    if engine.proven(evidence(context.config, definitions), content):
        return "reloaded"
    # It would keep the old engine, or end up with none, and say nothing.
    broken = unloadable(definitions.directory, content)
    if broken is not None:
        raise EngineError(f"clamd at {engine.clamd.address} is not told to reload: {broken}")
    canary = Canary.hatch(content)
    refused = caretaker.write_canary(canary.line)
    if refused is None:
        if not engine.prove_reload(canary, content):
            raise _not_loaded(engine, definitions)
        return "reloaded"
    if not refused.for_good:
        raise EngineError(f"no canary could be written ({refused.reason}), so clamd at"
                          f" {engine.clamd.address} is not proven to have loaded the definitions")
    return _without_canary(context, engine, definitions, report)


def _without_canary(context: Context, engine: SystemEngine, definitions: Definitions,
                    report: DefinitionsReport) -> Proof:
    """Prove it by what is new, in a directory that is not ours to write to."""
    state, content = context.config.state, definitions.content
    probe = Probe.of(content, _new(state, definitions))
    probe = probe and probe.askable(engine.clamd)
    if probe is not None:
        if not engine.prove_reload(probe, content):
            raise _not_loaded(engine, definitions)
        probe.write(state)
    elif (report.changed or not engine.as_new_as(content)) and not engine.catch_up(content):
        raise _not_loaded(engine, definitions)
    bodies.remember(state, bodies.bodies(definitions.directory, content))
    if probe is not None:
        return "reloaded"
    report.notices.append(
        f"clamd at {engine.clamd.address} is not proven to have loaded the definitions on disk:"
        " the directory is not ours to write to, and no new signature can be asked for")
    return "unproven"


def _new(state: Path, definitions: Definitions) -> Iterator[Body]:
    """Yield the plain body signatures that nobody has met; nothing is new to who knows nothing."""
    known = bodies.remembered(state)
    if known is not None:
        for body in bodies.bodies(definitions.directory, definitions.content):
            if body.mark not in known:
                yield body


def _not_loaded(engine: SystemEngine, definitions: Definitions) -> EngineError:
    closed = (None if engine.pid is None else
              unreadable(definitions.directory, definitions.content, engine.pid))
    return EngineError(f"clamd at {engine.clamd.address} did not load the definitions on disk;"
                       f" {'its log says why' if closed is None else closed}")
