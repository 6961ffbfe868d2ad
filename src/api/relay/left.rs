//! A request that goes on though its client left: nothing that ships, a planted bug ([`Fault::LeftRequestsGoOn`](super::super::faults::Fault)).

use http_body_util::BodyExt as _;
use http_body_util::Empty;
use tokio::sync::oneshot;

use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::Opening;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::workers::worker::AnswerBody;

const TASK: Task = Task { name: "left_request", stage: Stage::Serve, on_end: OnEnd::Fine };

/// An answer that a task of its own begins.
pub(super) fn opened(gateway: &Gateway, opening: Opening) -> Opening {
    let (tell, told) = oneshot::channel();
    gateway.node.tasks.spawn(TASK, |_| async move { drop(tell.send(opening.await)) });
    Box::pin(async { told.await.unwrap_or(Err(ApiError::Draining)) })
}

/// The rest of an answer, which nobody waits for.
pub(super) fn read(gateway: &Gateway, body: &mut AnswerBody) {
    let nothing = Box::pin(Empty::new().map_err(|never| match never {}));
    let mut body = std::mem::replace(body, nothing);
    gateway.node.tasks.spawn(TASK, |_| async move { while let Some(Ok(_)) = body.frame().await {} });
}
