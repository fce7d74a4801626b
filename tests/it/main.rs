//! The program as a whole, and what needs recordings or sockets.

mod passage;
