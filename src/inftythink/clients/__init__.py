"""What other libraries need to make the most of ``inftythink serve``; each module needs an extra of its own."""
