// Is the kernel there? Notebooks that tell nothing leave that open.

const GONE = ['restarting', 'autorestarting', 'dead', 'terminating']

export class Kernel {
  constructor(model, lost) {
    this.kernel = model.widget_manager?.kernel
    this.isLost = false
    this.heard = (_, status) => { if (GONE.includes(status) && !this.isLost) { this.isLost = true; lost() } }
    this.kernel?.statusChanged?.connect(this.heard)
  }
  close() { this.kernel?.statusChanged?.disconnect(this.heard) }
  silence() {
    // what to say when an answer is not confirmed
    if (this.isLost || this.kernel?.status === 'dead') return 'The kernel has stopped or was restarted, and this answer is not saved. Earlier answers are. Run the cell again to go on.'
    if (this.kernel?.status === 'busy') return 'The kernel is busy with another cell. This answer is not saved yet; it will be when the kernel is free.'
    return 'The kernel does not answer, and this answer is not saved yet. If the kernel was restarted, run the cell again; earlier answers are saved.'
  }
}
