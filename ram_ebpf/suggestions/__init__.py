"""From what was refused to lines for the policy; needs no kernel."""
