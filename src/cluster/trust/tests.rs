//! What an authority keeps, and what its certificates are good for.
