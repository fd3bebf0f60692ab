# Values that other elements read, so this comes before their own defaults (10).
# dib sources it outside and inside the chroot.

# cloud-init renders the network, so no /etc/network/interfaces.d.
export DIB_APT_MINIMAL_CREATE_INTERFACES=0
export DIB_GRUB_TIMEOUT=${DIB_GRUB_TIMEOUT:-1}
# processor.max_cstate=1: the factory's images have always run without deep
# idle states, which cost latency on its hypervisors.
export DIB_BOOTLOADER_DEFAULT_CMDLINE=${DIB_BOOTLOADER_DEFAULT_CMDLINE:-"nofb nomodeset gfxpayload=text processor.max_cstate=1"}
export IMAGEFACTORY_USER=${IMAGEFACTORY_USER:-linux}
export IMAGEFACTORY_NTP_SERVERS=${IMAGEFACTORY_NTP_SERVERS:-"ntp01.otc-service.com ntp02.otc-service.com"}
