//! Which of several model names is the newest.
