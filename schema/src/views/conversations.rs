//! Conversations, what was said in them, and contacts, as people read them.
