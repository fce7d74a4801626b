//! The active alerts, as of the last check.

use std::sync::{Mutex, PoisonError};

use crate::control::snapshot::AlertView;

/// Written by the alert check, read by snapshots.
#[derive(Debug, Default)]
pub struct ActiveAlerts(Mutex<Vec<AlertView>>);

impl ActiveAlerts {
    pub fn set(&self, alerts: Vec<AlertView>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = alerts;
    }

    #[must_use]
    pub fn list(&self) -> Vec<AlertView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
