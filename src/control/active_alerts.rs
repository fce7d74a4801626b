//! The active alerts, as of the last check.

use crate::base::sync::Mutex;
use crate::control::snapshot::AlertView;

/// Written by the alert check, read by snapshots.
#[derive(Debug, Default)]
pub struct ActiveAlerts(Mutex<Vec<AlertView>>);

impl ActiveAlerts {
    pub fn set(&self, alerts: Vec<AlertView>) {
        *self.0.lock() = alerts;
    }

    #[must_use]
    pub fn list(&self) -> Vec<AlertView> {
        self.0.lock().clone()
    }
}
