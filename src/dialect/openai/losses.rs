//! What a request loses on its way into this dialect.

use std::borrow::Cow;

use crate::dialect::Loss;

/// Fields that were left out, each named once, in the order in which they were missed.
#[derive(Debug, Default)]
pub(super) struct Losses(Vec<Loss>);

impl Losses {
    pub(super) fn add(&mut self, field: impl Into<Cow<'static, str>>) {
        let loss = Loss(field.into());
        if !self.0.contains(&loss) {
            self.0.push(loss);
        }
    }

    pub(super) fn into_vec(self) -> Vec<Loss> {
        self.0
    }
}
