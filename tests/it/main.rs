//! Behaviour over real sockets.

mod gateway;
