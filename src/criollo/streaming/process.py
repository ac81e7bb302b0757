"""An exec or attach on the streams that a client has opened."""

from criollo.aio.streams import Streams
from criollo.containers.attach import attach, check_attach
from criollo.containers.exec import check_exec, exec_stream
from criollo.errors import CriolloError
from criollo.model.session import AttachSession, ExecSession, ForwardSession, Session
from criollo.pods.context import Pods
from criollo.pods.forward import check_forward
from criollo.streaming.session import Status


def check_session(pods: Pods, session: Session) -> None:
    """Whether it could run now: asked when a client wants a token, and again when it comes with it.

    Raises:
        NotFound, WrongState, Unsupported: as the verb says.
    """
    match session:
        case ExecSession():
            check_exec(pods.containers, session)
        case AttachSession():
            check_attach(pods.containers, session)
        case ForwardSession():
            check_forward(pods, session)


async def run_process(pods: Pods, session: ExecSession | AttachSession, streams: Streams) -> Status:
    """Run it to its end; a failure is a status too, because the client can still be told."""
    try:
        if isinstance(session, ExecSession):
            return Status(exit_code=await exec_stream(pods.containers, session, streams))
        await attach(pods.containers, session, streams)
        return Status()
    except CriolloError as error:
        return Status(failure=str(error))
