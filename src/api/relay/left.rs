//! A request that goes on though its client left: nothing that ships, a planted bug ([`Fault::LeftRequestsGoOn`](super::super::faults::Fault)).

use tokio::sync::oneshot;

use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::Opening;
use super::attempt::Opened;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;

const TASK: Task = Task { name: "left_request", stage: Stage::Serve, on_end: OnEnd::Fine };

/// What it comes to, made by a task of its own.
pub(super) fn to_the_end(gateway: &Gateway, opening: Opening) -> Opening {
    let (tell, told) = oneshot::channel();
    gateway.node.tasks.spawn(TASK, |_| async move {
        if let Err(Ok((Opened::Live(mut live), _))) = tell.send(opening.await) {
            while live.next().await.is_some() {}
        }
    });
    Box::pin(async { told.await.unwrap_or(Err(ApiError::Draining)) })
}
