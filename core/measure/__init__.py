"""What is measured beside a campaign: this machine, backends against each other, throughput, a preset of its own."""
