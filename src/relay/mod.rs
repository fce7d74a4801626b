//! One request, from read to done; the files are its stages.

mod account;
pub mod answer;
pub mod ask;
pub mod attempt;
pub mod body;
pub mod commit;
pub mod continuity;
pub mod engine;
pub mod form;
pub mod halt;
pub mod intake;
pub mod late;
pub mod lists;
pub mod network;
pub mod ourselves;
pub mod prepare;
pub mod pump;
pub mod reply;
pub mod rounds;
pub mod said;
pub mod serve;
pub mod small;
pub mod stored;
pub mod tally;
pub mod translated;
pub mod unframe;
pub mod waiting;
