//! Trajectories and files of chats become adapters.

mod adamw;

#[cfg(test)]
mod tests;
