//! A handler made from an async function, for small in-process projectors and for tests.
//!
//! It has the default limits and no state of its own; a receiver that needs either implements [`Handler`] itself.

use async_trait::async_trait;

use super::{Accepted, Handler, HandlerError, RootBatch};

/// A handler that calls a function for every batch; made by [`handler_fn`].
#[derive(Debug, Clone)]
pub struct FunctionHandler<F>(F);

/// Makes a handler of an async function. The batch is a cheap copy: its events are shared.
pub fn handler_fn<F, Answer>(function: F) -> FunctionHandler<F>
where
    F: Fn(RootBatch) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Accepted, HandlerError>> + Send + 'static,
{
    FunctionHandler(function)
}

#[async_trait]
impl<F, Answer> Handler for FunctionHandler<F>
where
    F: Fn(RootBatch) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Accepted, HandlerError>> + Send + 'static,
{
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        (self.0)(batch.clone()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::testing::batch;

    #[tokio::test]
    async fn calls_the_function() {
        let handler = handler_fn(|batch: RootBatch| async move {
            if batch.root.id() == "poison" {
                return Err(HandlerError::permanent("no"));
            }
            Ok(Accepted::all(&batch))
        });
        assert_eq!(handler.deliver(&batch("a", 0..3)).await.unwrap(), Accepted { events: 3 });
        assert!(matches!(handler.deliver(&batch("poison", 0..1)).await, Err(HandlerError::Permanent { .. })));
    }
}
