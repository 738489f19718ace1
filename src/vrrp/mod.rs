//! Who holds the address? RFC 9568 and RFC 3768: packets, the election machine, its driver.
