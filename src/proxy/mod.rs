//! Where does this connection go, and how do the bytes get there?
